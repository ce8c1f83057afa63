"""What cannot be merged into this base is refused by name, and nothing is left behind."""

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
from lora_jobs.weightfiles import tensors_of
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
    "repeated layers": ({"layer_replication": [[0, 1]]}, "layer_replication", "baseModel"),
    "other parameters": ({"target_parameters": ["q.weight"]}, "q.weight (target_pa", "baseModel"),
    "aLoRA": ({"alora_invocation_tokens": [1]}, "aLoRA", "train a plain LoRA"),
    "Arrow": ({"arrow_config": {"top_k": 2}}, "Arrow", "train a plain LoRA"),
    "QALoRA": ({"use_qalora": True}, "QALoRA", "16-bit base"),
    "BD-LoRA": ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA", "baseModel"),
    "KaSA": ({"kasa_config": {"beta": 0.1}}, "KaSA", "baseModel"),
    "a field of tomorrow": ({"use_xlora": True}, "sets use_xlora", "baseModel"),
    "another PEFT type": ({"peft_type": "IA3"}, "of type IA3", "baseModel"),
    "no PEFT type": ({"peft_type": None}, "of type unknown", "baseModel"),
    "biases of tomorrow": ({"bias": "some"}, "bias=some", "baseModel"),
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
    "KaSA": (f"{PREFIX}{Q}.lora_diag", (2,), "KaSA"),
    "an adapter's name": (f"{PREFIX}{Q}.lora_A.default.weight", (2, 4), "adapter's name"),
    "a key without prefix": (f"{Q}.lora_A.weight", (2, 4), "no part of a LoRA"),
    "a convolution": (f"{PREFIX}{UP}.lora_A.weight", (2, 4, 1, 1), "[2, 4, 1, 1]"),
    "nested layers": (f"{PREFIX}{Q}.base_layer.lora_A.weight", (6, 4), "one around the other"),
    "a tensor of the tuner": (f"{PREFIX}{Q}.lora_C.weight", (2, 4), "no part of a LoRA"),
    "something else": ("state", (1,), "no part of a LoRA"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "shape", "says"), KEYS.values(), ids=KEYS.keys())
def test_a_key_that_is_not_merged_is_refused_with_where_it_comes_from(
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


EMBED = "model.embed_tokens"
DORA: Tensors = {f"{PREFIX}{Q}.lora_magnitude_vector": np.ones(6, np.float32)}
LORA_BIAS: Tensors = {f"{PREFIX}{Q}.lora_B.bias": np.ones(6, np.float32)}
NEW_ROWS = {f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": matrix(2, 4)}
DISAGREEMENTS: dict[str, tuple[dict[str, Any], Tensors, str]] = {
    "DoRA without norms": ({"use_dora": True}, {}, f"{Q} has no lora_magnitude_vector"),
    "norms without DoRA": ({}, DORA, f"{Q} has a lora_magnitude_vector"),
    "too many norms": (
        {"use_dora": True}, {next(iter(DORA)): np.ones(7)}, "lora_magnitude_vector is [7]",
    ),
    "lora_bias without biases": ({"lora_bias": True}, {}, f"{Q} has no lora_B.bias"),
    "biases without lora_bias": ({}, LORA_BIAS, f"{Q} has a lora_B.bias"),
    "nothing of a saved module": ({"modules_to_save": ["lm_head"]}, {}, "lists lm_head in modules"),
    "no list of saved modules": ({"modules_to_save": "lm_head"}, {}, "no list of names"),
    "no rows of tokens": ({"trainable_token_indices": [1]}, {}, "hold no trainable tokens"),
    "rows of no tokens": ({}, NEW_ROWS, "hold trainable tokens"),
    "rows of another module": (
        {"trainable_token_indices": {"wte": [1, 2]}}, NEW_ROWS, "indices of wte",
    ),
    "a token twice": ({"trainable_token_indices": [1, 1]}, NEW_ROWS, "names a row of"),
    "a token below zero": ({"trainable_token_indices": [1, -1]}, NEW_ROWS, "names no rows"),
    "two copies that differ": (
        {"modules_to_save": ["embed_tokens"]},
        {f"{PREFIX}{EMBED}.weight": matrix(8, 4),
         f"{PREFIX}{EMBED}.modules_to_save.weight": matrix(8, 4, 2)},
        f"two {EMBED}.weight that differ",
    ),
    "not all biases": ({"bias": "all"}, {}, "bias=all, but its weights have no x.bias"),
    "norms of an embedding's other half": (
        {}, {f"{PREFIX}{Q}.lora_embedding_A": matrix(2, 4)}, "only one of lora_embedding_A",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "more", "says"), DISAGREEMENTS.values(), ids=DISAGREEMENTS.keys()
)
def test_weights_that_are_not_what_the_config_announces_are_refused(
    tmp_path: Path, config: dict[str, Any], more: Tensors, says: str
) -> None:
    tensors = {f"{Q}.weight": matrix(6, 4), f"{EMBED}.weight": matrix(8, 4), "x.bias": np.ones(3)}
    base = write_base(tmp_path / "base", tensors)
    adapter = write_adapter(tmp_path / "adapter", lora(Q, 6, 4) | more, **config)
    refused = refusal(tmp_path, base, adapter)
    assert refused.reason is Reason.INVALID_INPUT
    assert says in str(refused)


UNFIT: dict[str, tuple[dict[str, Any], Tensors, Reason, str]] = {
    "a token that is none": (
        {"trainable_token_indices": [1, 8]}, NEW_ROWS, MISMATCH, f"row 8 of {EMBED}.weight",
    ),
    "tokens of another width": (
        {"trainable_token_indices": [1]},
        {next(iter(NEW_ROWS)): matrix(1, 5)}, MISMATCH, "[1, 5] in the adapter",
    ),
    "rows for fewer tokens": (
        {"trainable_token_indices": [1]}, NEW_ROWS, MISMATCH, "[2, 4] in the adapter",
    ),
    "a bias of a layer that has none": (
        {"lora_bias": True}, LORA_BIAS, Reason.UNSUPPORTED_ADAPTER, "has none in the base",
    ),
    "a head of another width": (
        {}, {f"{PREFIX}lm_head.weight": matrix(8, 5)}, MISMATCH, "lm_head.weight is [8, 4]",
    ),
    "a layer of another size": (
        {"modules_to_save": ["v_proj"]},
        {f"{PREFIX}model.v_proj.weight": matrix(7, 4)}, MISMATCH, "[6, 4] in the base, and [7, 4]",
    ),
    "a larger vocabulary of the embedding alone": (
        {}, {f"{PREFIX}{EMBED}.weight": matrix(9, 4)}, MISMATCH, "resizes the vocabulary",
    ),
    "a square Conv1D of an unknown model": (
        {"fan_in_fan_out": True}, lora("model.square", 6, 6), Reason.UNSUPPORTED_ADAPTER,
        "it cannot be told which way round",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "more", "reason", "says"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_the_base_is_refused(
    tmp_path: Path, config: dict[str, Any], more: Tensors, reason: Reason, says: str
) -> None:
    tensors = {
        f"{Q}.weight": matrix(6, 4), f"{EMBED}.weight": matrix(8, 4),
        "model.v_proj.weight": matrix(6, 4), "model.square.weight": matrix(6, 6),
        "lm_head.weight": matrix(8, 4),
    }  # fmt: skip
    base = write_base(tmp_path / "base", tensors)
    update = more if config.get("fan_in_fan_out") else lora(Q, 6, 4) | more
    if config.get("lora_bias"):
        update |= LORA_BIAS
    refused = refusal(tmp_path, base, write_adapter(tmp_path / "adapter", update, **config))
    assert refused.reason is reason
    assert says in str(refused)


def test_a_token_of_an_embedding_that_is_one_number_is_refused(tmp_path: Path) -> None:
    numbers = {f"{EMBED}.weight": np.ones(()), "lm_head.weight": np.ones(())}
    base = write_base(tmp_path / "base", {f"{Q}.weight": matrix(6, 4)} | numbers)
    trained = lora(Q, 6, 4) | NEW_ROWS
    adapter = write_adapter(tmp_path / "adapter", trained, trainable_token_indices=[0, 1])
    assert "embed_tokens.weight is [] in the base" in str(refusal(tmp_path, base, adapter))
    untrained = write_adapter(tmp_path / "untrained")
    merge_adapter(base, untrained, tmp_path / "merged", quiet)  # the base's own, as it was


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


FORMS = (
    "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B",
    "lora_magnitude_vector", "token_adapter.trainable_tokens_delta", "base_layer.weight", "bias",
    "token_adapter.base_layer.weight", "original_module.weight", "modules_to_save.weight", "weight",
    "base_layer.lora_A.weight", "base_layer.lora_B.weight",
)  # fmt: skip
MODULES = (Q, EMBED, "lm_head", "wte", "model.layers.0.mlp.experts", "model.norm")
sizes = st.sampled_from([1, 2, 4, 6, 8])
key_names = st.builds(
    "{}{}.{}".format, st.just(PREFIX), st.sampled_from(MODULES), st.sampled_from(FORMS)
)
any_keys = st.dictionaries(key_names, st.lists(sizes, max_size=3).map(tuple), max_size=6)
any_settings = st.fixed_dictionaries(
    {},
    optional={
        "use_dora": st.booleans(), "lora_bias": st.booleans(), "fan_in_fan_out": st.booleans(),
        "bias": st.sampled_from(["none", "all", "lora_only", 3]),
        "modules_to_save": st.sampled_from([None, ["lm_head"], ["norm"], "x", [1], {"a": 1}]),
        "trainable_token_indices": st.sampled_from(
            [None, [1], [1, 7], [9], {"lm_head": [2]}, {"embed_tokens": [1], "lm_head": [1]}, "x"]
        ),
        "target_parameters": st.sampled_from([None, ["experts.down_proj"], ["x"], "x", 3]),
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_keys, any_settings, st.booleans())
def test_any_keys_and_settings_are_merged_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    keys: dict[str, tuple[int, ...]],
    config: dict[str, Any],
    is_tied: bool,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    tensors = {f"{Q}.weight": matrix(6, 4), f"{EMBED}.weight": matrix(8, 4)}
    tensors |= {"model.norm.weight": np.ones(4), "model.norm.bias": np.ones(4)}
    base = write_base(
        folder / "base", tensors | ({} if is_tied else {"lm_head.weight": matrix(8, 4)})
    )
    update = lora(Q, 6, 4) | {name: np.ones(shape) for name, shape in keys.items()}
    adapter = write_adapter(folder / "adapter", update, **config)
    try:
        report = merge_adapter(base, adapter, folder / "merged", quiet)
    except Refused:
        assert not list(folder.glob("merged*"))
    else:
        assert len(tensors_of(folder / "merged")) == report.merged + report.copied


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
    assert "quantized already (gptq)" in str(refused)
    assert "16-bit" in str(refused)
    assert "merge.baseWeights: DequantizedNF4" in str(refused), "the way for adapters of QLoRA"


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
