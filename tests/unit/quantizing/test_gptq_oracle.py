"""The oracle that GPTQModel's results are held against, held against itself (Q1, Q9)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptq_oracle import Codes, gptq, layer_error, pack, rtn, unpack

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@given(seed=seeds)
def test_what_is_packed_is_unpacked_for_all_codes_zero_points_and_orders(
    group_size: int, seed: int
) -> None:
    """Q1."""
    random = np.random.default_rng(seed)
    inputs, outputs = 128, 16
    groups = inputs // group_size
    layer = Codes(
        random.integers(0, 16, (inputs, outputs)),
        random.integers(1, 17, (groups, outputs)),
        random.random((groups, outputs)),
        random.permutation(np.arange(inputs) // group_size),
    )
    found = unpack(*pack(layer), layer.scales, layer.groups)
    for packed, before in zip(found, layer, strict=True):
        assert np.array_equal(packed, before)


def test_the_symmetric_zero_point_is_stored_less_one() -> None:
    """Q1: 8 is stored as 7 in every nibble."""
    _, qzeros = pack(rtn(np.eye(32, 32), 32))
    assert {hex(word) for word in qzeros.view(np.uint32).flat} == {"0x77777777"}


@given(seed=seeds)
def test_rounding_to_nearest_is_off_by_half_a_step_at_most(seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(8, 64))
    layer = rtn(weight, 32)
    step = layer.scales[layer.groups].T
    assert np.all(np.abs(weight - layer.dequantized()) <= step / 2 + 1e-12)


@given(seed=seeds)
def test_gptq_errs_less_than_rounding_on_inputs_that_hang_together(seed: int) -> None:
    """Q9."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(16, 64))
    inputs = random.normal(size=(512, 8)) @ random.normal(size=(8, 64))
    inputs += 0.1 * random.normal(size=inputs.shape)
    hessian = inputs.T @ inputs
    errors = [
        layer_error(weight, layer.dequantized(), hessian)
        for layer in (gptq(weight, hessian, 32), rtn(weight, 32))
    ]
    assert errors[0] < errors[1]
