"""Which way round a weight is stored: (out, in), or (in, out) as Conv1D and embeddings do. Pure.

The config's `fan_in_fan_out` is the word of the last layer that PEFT wrapped, so a GPT-2 adapter
that also has a linear head may say false. What a layer is decides; the shapes must agree.
"""

from collections.abc import Mapping
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.changes import Term

_CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_CONV1D_LAYERS = ("c_attn", "q_attn", "c_proj", "c_fc")


def is_conv1d_model(config: Mapping[str, Any]) -> bool:
    """Whether the base is of a kind whose layers are Conv1D."""
    return config.get("model_type") in _CONV1D_MODELS


def is_stored_transposed(
    term: Term, name: str, shape: tuple[int, ...], config: Mapping[str, Any]
) -> bool | None:
    """Whether a weight is stored as (in, out).

    Args:
        term: Its update, of (out, in).
        name: Its name.
        shape: Its shape as stored.
        config: The base's config.json.

    Returns:
        None where neither way fits.

    Raises:
        Refused: Both do, in a model that is not known here.
    """
    target, wanted = term.target, term.shape
    is_known = is_conv1d_model(config)
    is_conv1d = is_known and name.removesuffix(".weight").rpartition(".")[2] in _CONV1D_LAYERS
    is_transposed = target.is_embedding or is_conv1d
    if not is_transposed and target.fan_in_fan_out and not is_known:
        if wanted[0] == wanted[1]:
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"the adapter was trained on Conv1D layers (fan_in_fan_out), and {name} is square:"
                " it cannot be told which way round it is stored; merge it with the tool that "
                "trained it and give the result as baseModel",
            )
        is_transposed = shape != wanted
    return is_transposed if shape == (wanted[::-1] if is_transposed else wanted) else None
