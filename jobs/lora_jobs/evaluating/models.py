"""Models as Transformers and PEFT load them: one at a time, from local files, no remote code.

One runtime for all conditions, so that a difference between two of them is the model's and not the
engine's. The quantized model is loaded through optimum by gptqmodel's kernels.
"""

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.torchruntime import prepare, quiet_stdout


class NotApplicable(Exception):
    """A condition that cannot be measured on these files; the rest can. `str()` says why."""


@contextmanager
def causal_model(folder: Path, dtype: str) -> Iterator[Any]:
    """A model in evaluation mode, on the accelerator if there is one; freed at the end.

    Raises:
        Refused: Transformers cannot load it.
    """
    prepare()
    transformers_logging.disable_progress_bar()
    on_accelerator = torch.cuda.is_available()
    try:
        with quiet_stdout():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                device_map="auto" if on_accelerator else None,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError, KeyError) as error:
        raise Refused(
            Reason.INVALID_INPUT, f"Transformers cannot load {folder.name}: {error}"
        ) from error
    model.eval()
    try:
        yield model
    finally:
        del model
        gc.collect()
        if on_accelerator:
            torch.cuda.empty_cache()


def with_adapters(base: Any, adapters: Sequence[Path]) -> Any:
    """The base model with the adapters unmerged, all active; `base` itself is changed.

    PEFT only warns of keys that it did not find a place for, and then measures the base.

    Raises:
        NotApplicable: PEFT refuses an adapter, or did not take all of it.
    """
    from peft import PeftModel

    model: Any = None
    names = [f"adapter{i}" for i in range(len(adapters))]
    for name, folder in zip(names, adapters, strict=True):
        if not any(folder.glob("*.safetensors")):
            raise NotApplicable(f"{folder.name} holds no safetensors file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is checked below
                if model is None:
                    model = PeftModel.from_pretrained(base, folder, adapter_name=name)
                loaded = model.load_adapter(folder, adapter_name=name)
        except (ValueError, RuntimeError, NotImplementedError, KeyError, TypeError) as error:
            raise NotApplicable(f"PEFT refuses the adapter: {_first_line(error)}") from error
        lost = [*loaded.missing_keys, *loaded.unexpected_keys]
        if lost:
            raise NotApplicable(
                f"PEFT found no place for, or no value of, {len(lost)} tensors, e.g. {lost[0]}"
            )
    if len(names) > 1:
        model.base_model.set_adapter(names)
    return model.eval()


def vocabulary_size(model: Any) -> int:
    """Rows of the embedding: token ids are below it."""
    return int(model.get_input_embeddings().weight.shape[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
