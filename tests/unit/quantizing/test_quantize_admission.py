"""What is refused before an accelerator works."""

from pathlib import Path

import pytest

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.quantizing.admission import (
    modules_to_quantize,
    refuse_unsupported,
    refuse_wrong_outcome,
)
from lora_jobs.weightfiles import TensorEntry

LAYER = "model.layers.0.mlp"


def tensor(name: str, *shape: int, dtype: str = "BF16") -> TensorEntry:
    return TensorEntry(name, dtype, shape, Path("model.safetensors"), 0, 0)


def tensors(*entries: TensorEntry) -> dict[str, TensorEntry]:
    return {e.name: e for e in entries}


def shapes(*entries: TensorEntry) -> dict[str, tuple[int, ...]]:
    return {e.name: e.shape for e in entries}


def test_linear_layers_of_the_decoder_are_quantized_and_nothing_else() -> None:
    found = modules_to_quantize(
        shapes(
            tensor("model.embed_tokens.weight", 1000, 128),
            tensor(f"{LAYER}.up_proj.weight", 256, 128),
            tensor(f"{LAYER}.up_proj.bias", 256),
            tensor("model.layers.0.input_layernorm.weight", 128),
            tensor("lm_head.weight", 1000, 128),
        ),
        128,
    )
    assert found == {f"{LAYER}.up_proj": 256 * 128}


def test_a_module_that_does_not_divide_into_groups_is_named_with_a_group_size_that_fits() -> None:
    entries = shapes(
        tensor(f"{LAYER}.up_proj.weight", 256, 128), tensor(f"{LAYER}.down_proj.weight", 128, 320)
    )
    with pytest.raises(Refused, match=r"mlp\.down_proj has 320 .* use groupSize 64") as refused:
        modules_to_quantize(entries, 128)
    assert refused.value.reason is Reason.INVALID_INPUT
    assert len(modules_to_quantize(entries, 64)) == 2


def test_a_shape_that_no_kernel_takes_is_refused() -> None:
    with pytest.raises(Refused, match="multiples of 32"):
        modules_to_quantize(shapes(tensor(f"{LAYER}.up_proj.weight", 100, 128)), 128)
    with pytest.raises(Refused, match="cannot be quantized"):
        modules_to_quantize(shapes(tensor(f"{LAYER}.up_proj.weight", 128, 100)), 128)


def test_groups_are_whole_on_every_accelerator_that_a_layer_is_split_over() -> None:
    """Q7: only layers whose input is split need it; the advice is a group size that fits."""
    entries = shapes(
        tensor(f"{LAYER}.up_proj.weight", 256, 128), tensor(f"{LAYER}.down_proj.weight", 128, 256)
    )
    assert len(modules_to_quantize(entries, 128, tensor_parallel=2)) == 2
    with pytest.raises(
        Refused, match=r"down_proj has 256 .* 4 accel.* use groupSize 64"
    ) as refused:
        modules_to_quantize(entries, 128, tensor_parallel=4)
    assert refused.value.reason is Reason.INVALID_INPUT
    assert len(modules_to_quantize(entries, 64, tensor_parallel=4)) == 2
    with pytest.raises(Refused, match="use fewer accelerators"):
        modules_to_quantize(entries, 32, tensor_parallel=16)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"quantization_config": {"bits": 4}}, "already"),
        ({"vision_config": {"depth": 2}}, "vision_config"),
        ({"audio_config": {"depth": 2}}, "audio_config"),
        ({"num_local_experts": 8}, "num_local_experts 8"),
        ({"n_routed_experts": 64}, "n_routed_experts 64"),
    ],
)
def test_architectures_that_cannot_be_quantized_well_are_refused_by_name(
    config: dict[str, object], named: str
) -> None:
    with pytest.raises(Refused, match=named):
        refuse_unsupported(config)


def test_a_dense_text_model_is_admitted() -> None:
    refuse_unsupported({"model_type": "llama", "num_experts": 1, "vision_config": None})


def test_a_result_with_a_module_too_few_or_a_narrow_head_is_refused() -> None:
    packed = tensor(f"{LAYER}.up_proj.qweight", 16, 256, dtype="I32")
    head = tensor("lm_head.weight", 1000, 128)
    expected = [f"{LAYER}.up_proj"]
    refuse_wrong_outcome(tensors(packed, head), expected)
    with pytest.raises(Refused, match="down_proj"):
        refuse_wrong_outcome(tensors(packed, head), [*expected, f"{LAYER}.down_proj"])
    with pytest.raises(Refused, match="lm_head"):
        refuse_wrong_outcome(
            tensors(packed, tensor("lm_head.weight", 1, dtype="F8_E4M3")), expected
        )
