"""What is no plain LoRA for this base is refused by name, and nothing is left behind."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging import merge_adapter
from lora_jobs.merging.adapter import read_adapter
from lora_jobs.merging.variants import HARMLESS_FIELDS, refuse_variants
from mergefiles import (
    PREFIX,
    UP,
    Array,
    Q,
    lora,
    matrix,
    quiet,
    write_adapter,
    write_base,
    write_raw,
    write_safetensors,
)

Tensors = dict[str, Array]


def refusal(tmp_path: Path, base: Path, adapter: Path) -> Refused:
    """The refusal of a merge, which leaves nothing."""
    with pytest.raises(Refused) as caught:
        merge_adapter(base, adapter, tmp_path / "merged", quiet)
    assert not list(tmp_path.glob("merged*"))
    return caught.value


Variants = dict[str, tuple[dict[str, Any], str, str]]
NAMED: Variants = {
    "DoRA": ({"use_dora": True}, "uses DoRA", "give the result as baseModel"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save", "baseModel"),
    "trainable tokens": ({"trainable_token_indices": [1]}, "trainable tokens", "baseModel"),
    "all biases": ({"bias": "all"}, "trained biases", "baseModel"),
    "the layers' biases": ({"bias": "lora_only"}, "trained biases", "baseModel"),
    "lora_bias": ({"lora_bias": True}, "lora_bias", "baseModel"),
    "Conv1D": ({"fan_in_fan_out": True}, "Conv1D", "baseModel"),
    "repeated layers": ({"layer_replication": [[0, 1]]}, "layer_replication", "baseModel"),
    "MoE parameters": ({"target_parameters": ["experts"]}, "target_parameters", "baseModel"),
    "aLoRA": ({"alora_invocation_tokens": [1]}, "aLoRA", "train a plain LoRA"),
    "Arrow": ({"arrow_config": {"top_k": 2}}, "Arrow", "train a plain LoRA"),
    "QALoRA": ({"use_qalora": True}, "QALoRA", "16-bit base"),
    "BD-LoRA": ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA", "baseModel"),
    "KaSA": ({"kasa_config": {"beta": 0.1}}, "KaSA", "baseModel"),
    "a field of tomorrow": ({"use_xlora": True}, "sets use_xlora", "baseModel"),
    "another PEFT type": ({"peft_type": "IA3"}, "of type IA3", "baseModel"),
    "no PEFT type": ({"peft_type": None}, "of type unknown", "baseModel"),
    "an unknown start": ({"init_lora_weights": "later"}, "init_lora_weights=later", "baseModel"),
}
CHANGED_STARTS: Variants = {
    f"{start}, unconverted": (
        {"init_lora_weights": start},
        f"init_lora_weights={start}",
        "path_initial_model_for_weight_conversion",
    )
    for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
}
VARIANTS = NAMED | CHANGED_STARTS


@pytest.mark.parametrize(("config", "says", "advises"), VARIANTS.values(), ids=VARIANTS.keys())
def test_a_variant_that_is_not_merged_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], says: str, advises: str
) -> None:
    base = write_base(tmp_path / "base")
    refused = refusal(tmp_path, base, write_adapter(tmp_path / "adapter", **config))
    assert refused.reason is Reason.UNSUPPORTED_ADAPTER
    assert says in str(refused)
    assert advises in str(refused)


PLAIN: list[dict[str, Any]] = [
    {"init_lora_weights": start} for start in (True, False, None, "gaussian", "eva", "orthogonal")
]


@pytest.mark.parametrize("config", [*PLAIN, {"use_dora": False, "bias": "none"}])
def test_a_start_that_leaves_the_base_alone_is_merged(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter", **config)
    assert merge_adapter(base, adapter, tmp_path / "merged", quiet).merged == 1


@pytest.mark.model
def test_every_field_that_peft_knows_is_harmless_or_refused_by_name() -> None:
    """A new PEFT with a new variant fails here, not in a merge."""
    from dataclasses import fields

    from peft import LoraConfig

    unknown = []
    for field in fields(LoraConfig):
        if field.name in HARMLESS_FIELDS:
            continue
        with pytest.raises(Refused) as caught:
            refuse_variants({"peft_type": "LORA", field.name: "x"})
        if "does not know" in str(caught.value):
            unknown.append(field.name)
    assert unknown == []


@pytest.mark.model
def test_what_peft_saves_by_default_is_a_plain_lora() -> None:
    from peft import LoraConfig

    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]).to_dict()
    refuse_variants(config | {"peft_type": config["peft_type"].value})


KEYS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "DoRA": (f"{PREFIX}{Q}.lora_magnitude_vector", (6,), "DoRA"),
    "an embedding": (f"{PREFIX}model.embed_tokens.lora_embedding_A", (2, 8), "on an embedding"),
    "trainable tokens": (
        f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta", (1, 4),
        "trainable tokens",
    ),
    "modules_to_save": (f"{PREFIX}lm_head.modules_to_save.weight", (8, 4), "modules_to_save"),
    "a base layer": (f"{PREFIX}lm_head.base_layer.weight", (8, 4), "copy of a base layer"),
    "a bias": (f"{PREFIX}{Q}.lora_B.bias", (6,), "trained bias"),
    "a whole tensor": (f"{PREFIX}lm_head.weight", (8, 4), "resized vocabulary"),
    "KaSA": (f"{PREFIX}{Q}.lora_diag", (2,), "KaSA"),
    "an adapter's name": (f"{PREFIX}{Q}.lora_A.default.weight", (2, 4), "adapter's name"),
    "a key without prefix": (f"{Q}.lora_A.weight", (2, 4), "no part of a plain LoRA"),
    "a convolution": (f"{PREFIX}{UP}.lora_A.weight", (2, 4, 1, 1), "[2, 4, 1, 1]"),
    "something else": ("state", (1,), "no part of a plain LoRA"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "shape", "says"), KEYS.values(), ids=KEYS.keys())
def test_a_key_that_is_no_plain_lora_is_refused_with_where_it_comes_from(
    tmp_path: Path, key: str, shape: tuple[int, ...], says: str
) -> None:
    update = lora(Q, 6, 4) | {key: np.ones(shape, np.float32)}
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter", update)
    refused = refusal(tmp_path, base, adapter)
    assert refused.reason is Reason.UNSUPPORTED_ADAPTER
    assert key in str(refused)
    assert says in str(refused)


def half_a_pair(update: Tensors) -> None:
    del update[f"{PREFIX}{Q}.lora_B.weight"]


def nothing(update: Tensors) -> None:
    update.clear()


def another_layer(update: Tensors) -> None:
    update |= lora("model.layers.7.self_attn.q_proj", 6, 4)


def another_width(update: Tensors) -> None:
    update |= lora(Q, 6, 5)


def transposed(update: Tensors) -> None:
    update |= lora(Q, 4, 6)


def the_head(update: Tensors) -> None:
    update |= lora("lm_head", 6, 4)


def the_embedding(update: Tensors) -> None:
    update |= lora("model.embed_tokens", 6, 4)


def not_a_number(update: Tensors) -> None:
    update[f"{PREFIX}{Q}.lora_A.weight"][0, 0] = np.nan


def infinity(update: Tensors) -> None:
    update[f"{PREFIX}{Q}.lora_B.weight"][5, 1] = -np.inf


MISMATCH, BROKEN = Reason.ADAPTER_MISMATCH, Reason.INVALID_INPUT
UPDATES: dict[str, tuple[Callable[[Tensors], None], Reason, str]] = {
    "half a pair": (half_a_pair, BROKEN, f"only one of lora_A and lora_B for {Q}"),
    "no keys": (nothing, BROKEN, "is empty"),
    "a layer that the base lacks": (another_layer, MISMATCH, "layers.7.self_attn.q_proj.weight"),
    "another width": (another_width, MISMATCH, "is [6, 4] in the base, and [6, 5] in the adapter"),
    "transposed shapes": (transposed, MISMATCH, "is [6, 4] in the base, and [4, 6]"),
    "the head": (the_head, Reason.UNSUPPORTED_ADAPTER, "changes lm_head, which may share"),
    "the embedding": (the_embedding, Reason.UNSUPPORTED_ADAPTER, "changes model.embed_tokens"),
    "NaN": (not_a_number, BROKEN, f"{Q}.weight is not finite in F32"),
    "infinity": (infinity, BROKEN, f"{Q}.weight is not finite in F32"),
}


@pytest.mark.parametrize(("change", "reason", "says"), UPDATES.values(), ids=UPDATES.keys())
def test_an_adapter_is_refused_with(
    tmp_path: Path, change: Callable[[Tensors], None], reason: Reason, says: str
) -> None:
    update = lora(Q, 6, 4)
    change(update)
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", update, base_model_name_or_path="org/other")
    refused = refusal(tmp_path, base, adapter)
    assert refused.reason is reason
    assert says in str(refused)
    assert ("trained on org/other" in str(refused)) is (reason is MISMATCH)


def test_a_sum_beyond_fp16_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {f"{Q}.weight": np.full((6, 4), 65504.0)}, "F16")
    adapter = write_adapter(tmp_path / "adapter", {n: t * 0 + 9 for n, t in lora(Q, 6, 4).items()})
    assert "not finite in F16" in str(refusal(tmp_path, base, adapter))


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another rank": ({"r": 3}, "says rank 3, but lora_A is [2, 4] and lora_B [6, 2]"),
    "another rank of the layer": ({"rank_pattern": {"q_proj": 4}}, "says rank 4"),
    "no rank": ({"r": None}, "r is None, not a positive number"),
    "rank zero": ({"r": 0}, "r is 0"),
    "a broken rank": ({"r": 2.5}, "a rank is a whole number"),
    "true as rank": ({"r": True}, "r is True"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha is None"),
    "an infinite alpha": ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
    "an alpha beyond any float": ({"lora_alpha": 10**400}, "not a positive number"),
    "a pattern that is none": ({"alpha_pattern": {"(": 2}}, "no regular expression"),
    "a list of patterns": ({"rank_pattern": ["q_proj"]}, "rank_pattern is no object"),
    "a word as alpha": ({"alpha_pattern": {"q_proj": "8"}}, "q_proj is 8, not a positive number"),
}


@pytest.mark.parametrize(("config", "says"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_is_refused_for(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter", **config)
    refused = refusal(tmp_path, base, adapter)
    assert refused.reason is Reason.INVALID_INPUT
    assert says in str(refused)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
fields_or_words = st.sampled_from(sorted(HARMLESS_FIELDS)) | st.text(max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(fields_or_words, values, max_size=6))
def test_any_config_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path_factory.mktemp("any") / "adapter", **config)
    with contextlib.suppress(Refused):
        assert len(read_adapter(adapter).targets) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "\ud800", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    (adapter / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "no readable adapter_config.json" in str(refusal(tmp_path, base, adapter))


@pytest.mark.parametrize("pickle", ["adapter_model.bin", "adapter_model.pt"])
def test_weights_that_are_only_there_as_pickle_are_refused(tmp_path: Path, pickle: str) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / pickle)
    refused = refusal(tmp_path, base, adapter)
    assert refused.reason is Reason.UNSAFE_FILE
    assert "can run code" in str(refused)


def test_a_quantized_base_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", quantization_config={"quant_method": "gptq"})
    refused = refusal(tmp_path, base, write_adapter(tmp_path / "adapter"))
    assert refused.reason is Reason.INVALID_INPUT
    assert "quantized (gptq)" in str(refused)
    assert "16-bit" in str(refused)


def test_a_weight_of_a_dtype_that_cannot_be_added_to_is_refused(tmp_path: Path) -> None:
    def to_integers(header: dict[str, Any]) -> None:
        header[f"{Q}.weight"]["dtype"] = "I32"

    base = write_base(tmp_path / "base")
    write_safetensors(base / "model.safetensors", {f"{Q}.weight": matrix(6, 4)}, change=to_integers)
    refused = refusal(tmp_path, base, write_adapter(tmp_path / "adapter"))
    assert f"{Q}.weight is I32; only BF16, F16, F32 can be merged" in str(refused)


def test_a_broken_adapter_file_is_refused(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    write_raw(adapter / "adapter_model.safetensors", b"{}", b"rest")
    assert "no complete safetensors file" in str(refusal(tmp_path, base, adapter))
