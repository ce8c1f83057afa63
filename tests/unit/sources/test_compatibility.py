"""Whether an adapter fits a base, from shapes alone."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.sources.compatibility import Shapes, check_shapes

SIZES = st.integers(1, 64)


def pair(module: str, outer: int, inner: int, rank: int = 4) -> Shapes:
    return {
        f"base_model.model.{module}.lora_A.weight": (rank, inner),
        f"base_model.model.{module}.lora_B.weight": (outer, rank),
    }


def check(adapter: Shapes, base: Mapping[str, tuple[int, ...]]) -> None:
    check_shapes(adapter, base, adapter="s3://a", base="s3://b")


@given(SIZES, SIZES, SIZES)
def test_an_adapter_of_the_bases_shapes_fits(outer: int, inner: int, rank: int) -> None:
    check(pair("layers.0.q", outer, inner, rank), {"layers.0.q.weight": (outer, inner)})


@given(SIZES, SIZES, st.integers(1, 8), st.booleans())
def test_an_adapter_of_another_width_does_not(
    outer: int, inner: int, more: int, wider_in: bool
) -> None:
    base = {"layers.0.q.weight": (outer, inner)}
    other = (outer, inner + more) if wider_in else (outer + more, inner)
    if sorted(other) == sorted((outer, inner)):
        return
    with pytest.raises(Refused) as caught:
        check(pair("layers.0.q", *other), base)
    assert caught.value.reason is Reason.ADAPTER_MISMATCH


def test_a_conv1d_weight_is_stored_transposed_and_fits() -> None:
    check(pair("h.0.attn.c_attn", 24, 8), {"h.0.attn.c_attn.weight": (8, 24)})


def test_a_tied_head_has_no_tensor_of_its_own() -> None:
    check(pair("lm_head", 32, 8), {"model.embed_tokens.weight": (32, 8)})


def test_a_resized_head_is_compared_with_the_copy_that_the_adapter_brings() -> None:
    own = {"base_model.model.lm_head.base_layer.weight": (34, 8)}
    check(pair("lm_head", 34, 8) | own, {"lm_head.weight": (32, 8)})


def test_a_base_without_head_leaves_out_the_name_of_its_body() -> None:
    check(pair("transformer.h.0.attn.c_attn", 24, 8), {"h.0.attn.c_attn.weight": (8, 24)})
    with pytest.raises(Refused, match="which the base does not have"):
        check(pair("other.h.0", 8, 8), {"h.0.weight": (8, 8), "other.h.1.weight": (8, 8)})


def test_all_experts_of_a_layer_are_left_to_the_merge() -> None:
    update = pair("mlp.experts", 8, 5) | pair("mlp.experts.base_layer", 10, 8)
    check(update, {"mlp.experts.0.down_proj.weight": (8, 5)})


def test_every_pair_is_looked_at() -> None:
    adapter = pair("layers.0.q", 8, 8) | pair("layers.1.q", 8, 8)
    with pytest.raises(Refused, match=r"layers\.1\.q, which the base does not have"):
        check(adapter, {"layers.0.q.weight": (8, 8)})
