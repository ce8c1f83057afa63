"""No model writes a token faster than its weights can be read: whoever seems to is mismeasured."""

import json
from pathlib import Path

from lora_jobs.weightfiles import tensors_of

MIN_WEIGHTS_BYTES = 1 << 30
"""Below this the caches of a device may hold much of a model."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_LOOKED_UP = ("embed_tokens.weight", "wte.weight")


def bytes_a_token(model: Path) -> int | None:
    """Bytes of weights that every token needs; None where that cannot be told.

    An embedding that is no output head as well is looked up, a row a token. Of experts a token
    needs some only.
    """
    config = json.loads((model / "config.json").read_text())
    if any(config.get(name) for name in _EXPERTS):
        return None
    tensors = tensors_of(model)
    has_head = any(name.endswith("lm_head.weight") for name in tensors)
    return sum(
        entry.size
        for name, entry in tensors.items()
        if not (has_head and name.endswith(_LOOKED_UP))
    )


def fastest_token_ms(
    read_bytes: int | None, bytes_per_second: float | None, devices: int = 1
) -> float | None:
    """The least time per output token that memory allows; None where nobody knows.

    Args:
        read_bytes: For each token.
        bytes_per_second: Peak of one device's memory.
        devices: That share the weights.
    """
    if read_bytes is None or bytes_per_second is None or read_bytes < MIN_WEIGHTS_BYTES:
        return None
    return read_bytes / (bytes_per_second * devices) * 1000
