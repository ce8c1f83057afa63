"""Cheap proofs that an adapter belongs to a base: names and shapes from safetensors headers.

It refuses what cannot fit before a stage runs. It does not decide what the merge can do with
adapter variants: `merge` consumes every key exactly once or refuses by name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import MAX_DOCUMENT_BYTES, parse_object
from lora_jobs.parallel import in_parallel
from lora_jobs.quantizedbase import refuse_quantized
from lora_jobs.sources.pins import Pin, PinnedFile
from lora_jobs.sources.place import Source
from lora_jobs.sources.selection import ADAPTER_CONFIG, CONFIG
from lora_jobs.weightfiles import TensorEntry, name_in_base, tensors_by

Shapes = dict[str, tuple[int, ...]]
_PEFT_PREFIX = "base_model.model."
_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"
_TIED_HEAD = "lm_head"
_ALL_EXPERTS = re.compile(r"\.experts(\.base_layer)*$")


def check_base(source: Source) -> None:
    """Refuse a base that is quantized already: merging into its codes would ruin it."""
    refuse_quantized(read_document(source, CONFIG), source.uri)


def check_adapter(adapter: Source, adapter_pin: Pin, base: Source, base_pin: Pin) -> None:
    """Compare an adapter with its base by their headers.

    Raises:
        Refused: UnsupportedAdapter for another PEFT type, AdapterMismatch when it targets what the
            base does not have, or in another size.
    """
    config = read_document(adapter, ADAPTER_CONFIG)
    check_config(config, adapter.uri)
    check_shapes(
        read_shapes(adapter, adapter_pin),
        read_shapes(base, base_pin),
        adapter=adapter.uri,
        base=base.uri,
        trained_on=str(config.get("base_model_name_or_path") or ""),
    )


def check_config(config: Mapping[str, Any], uri: str) -> None:
    """Refuse an adapter that is no LoRA."""
    peft_type = config.get("peft_type")
    if peft_type != "LORA":
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{uri} is a {peft_type or 'nameless'} adapter; only LORA can be merged",
        )
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise Refused(
            Reason.UNSUPPORTED_ADAPTER,
            f"{uri}: {ADAPTER_CONFIG} has no rank r; upload the one that PEFT saved",
        )


def check_shapes(
    adapter_shapes: Mapping[str, tuple[int, ...]],
    base_shapes: Mapping[str, tuple[int, ...]],
    *,
    adapter: str,
    base: str,
    trained_on: str = "",
) -> None:
    """Refuse LoRA pairs whose (out, in) is not that of the base's weight.

    Args:
        adapter_shapes: lora_A is (r, in), lora_B is (out, r).
        base_shapes: Linear weights are (out, in); Conv1D ones (in, out).
        adapter: URI, for the message.
        base: URI, for the message.
        trained_on: The adapter's own word for its base, for the message.
    """
    hint = f"; it says it was trained on {trained_on}" if trained_on else ""
    targets = [key.removesuffix(_LORA_A) for key in adapter_shapes if key.endswith(_LORA_A)]
    for target in sorted(targets):
        module = target.removeprefix(_PEFT_PREFIX)
        if _ALL_EXPERTS.search(module):
            continue  # the base's files hold them one by one; the merge takes them apart
        # A resized vocabulary: the adapter brings the layer that it was trained on.
        own = adapter_shapes.get(f"{target}.base_layer.weight")
        wanted = own or base_shapes.get(name_in_base(f"{module}.weight", base_shapes) or "")
        if wanted is None and module.endswith(_TIED_HEAD):
            continue  # tied to the embedding: there is no tensor of its own
        if wanted is None:
            what = f"{module}, which the base does not have"
        else:
            inner = adapter_shapes[target + _LORA_A][-1]
            outer = adapter_shapes.get(target + _LORA_B, (0,))[0]
            if sorted((outer, inner)) == sorted(wanted[:2]):
                continue
            what = f"{module} as {outer}x{inner}, which in the base is {'x'.join(map(str, wanted))}"
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"adapter {adapter} does not belong to base {base}: it changes {what}{hint}; name the "
            "base that it was trained on",
        )


def read_shapes(source: Source, pin: Pin) -> Shapes:
    """Shapes of all tensors of a source, from its safetensors headers alone."""
    weights = [f for f in pin.files if f.path.endswith(".safetensors")]
    headers = in_parallel(lambda file: _tensors(source, file), weights)
    return {tensor.name: tensor.shape for tensors in headers for tensor in tensors}


def _tensors(source: Source, file: PinnedFile) -> list[TensorEntry]:
    try:
        return tensors_by(
            lambda start, count: source.read(file.path, start, count), Path(file.path), file.size
        )
    except Refused as refusal:
        raise Refused(refusal.reason, f"{source.uri}: {refusal}") from None


def read_document(source: Source, path: str) -> dict[str, Any]:
    """A JSON object of a source.

    Raises:
        Refused: It is none.
    """
    try:
        return parse_object(source.read(path, 0, MAX_DOCUMENT_BYTES + 1))
    except ValueError:
        raise Refused(
            Reason.INVALID_INPUT, f"{path} of {source.uri} is no JSON object; upload it again"
        ) from None
