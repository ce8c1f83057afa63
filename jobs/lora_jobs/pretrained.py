"""What a model's folder says of itself, in Hugging Face's layout: config and tokenizer.

Transformers is imported for the tokenizer only, and when it is asked for.
"""

from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import read_object

SIXTEEN_BIT = ("bfloat16", "float16")
DEFAULT_DTYPE = "bfloat16"


def read_config(model: Path) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        Refused: It is missing or no JSON object.
    """
    try:
        return read_object(model / "config.json")
    except (OSError, ValueError):
        raise Refused(
            Reason.INVALID_INPUT, f"{model.name} has no config.json that can be read"
        ) from None


def compute_dtype(model: Path) -> str:
    """The 16-bit type that a model runs in: its own, bfloat16 for one stored in fp32."""
    config = read_config(model)
    stated = config.get("dtype") or config.get("torch_dtype")
    return stated if stated in SIXTEEN_BIT else DEFAULT_DTYPE


def refuse_beyond_positions(model: Path, length: int, field: str) -> None:
    """Let lengths pass that the model has positions for.

    Raises:
        Refused: It has fewer.
    """
    positions = read_config(model).get("max_position_embeddings")
    if isinstance(positions, int) and length > positions:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{field} {length} is more than the model's {positions} positions; lower it",
        )


def load_tokenizer(model: Path) -> Any:
    """The model's tokenizer.

    Raises:
        Refused: The folder holds none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{model.name} holds no tokenizer that can be read ({type(error).__name__}); "
            "tokenizer.json and tokenizer_config.json belong to the model",
        ) from None
