"""`transformers serve` whose keys and values are rounded to 8 bits (e4m3) before they are cached.

    python rounded_cache.py serve MODEL ...

What a quantized KV cache does to the numbers, where the engine itself has none: values go to
float8_e4m3fn and back, with a scale of 1 as vLLM's `--kv-cache-dtype fp8` without calibration.
Attention reads the rounded values, those of the prompt too.
"""

import sys
from typing import Any

import torch
from transformers import cache_utils
from transformers.cli.transformers import main

APPLIED = "keys and values are rounded to float8_e4m3fn"
_update = cache_utils.DynamicLayer.update
_limit = torch.finfo(torch.float8_e4m3fn).max
_said: list[str] = []


def rounded(states: torch.Tensor) -> torch.Tensor:
    """The same values as 8 bits hold them."""
    return states.clamp(-_limit, _limit).to(torch.float8_e4m3fn).to(states.dtype)


def update(self: Any, keys: torch.Tensor, values: torch.Tensor, *args: Any, **more: Any) -> Any:
    """As the library's, of rounded states."""
    if not _said:
        _said.append(APPLIED)
        print(APPLIED, flush=True)
    return _update(self, rounded(keys), rounded(values), *args, **more)


if __name__ == "__main__":
    cache_utils.DynamicLayer.update = update
    sys.exit(main())
