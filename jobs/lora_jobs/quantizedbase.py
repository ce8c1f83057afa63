"""A base that is stored in codes already: nothing can be merged into it."""

from collections.abc import Mapping
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused


def refuse_quantized(config: Mapping[str, Any], base: str) -> None:
    """Look at a base's config.json.

    Args:
        config: What it says.
        base: What people call the base.

    Raises:
        Refused: It is quantized; says what to name instead, for adapters of QLoRA too.
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    raise Refused(
        Reason.INVALID_INPUT,
        f"{base} is quantized already ({method or 'unknown method'}), and a merge into its codes "
        "would round the adapter away; name the 16-bit base model that it was made of, and where "
        "the adapter was trained on it in NF4 (QLoRA), set merge.baseWeights: DequantizedNF4",
    )
