"""Models as Transformers and PEFT load them: one at a time, from local files, no remote code.

One runtime for all conditions, so that a difference between two of them is the model's and not the
engine's. The quantized model is loaded by Transformers through gptqmodel, and its weights are then
widened to the 16-bit type that its layers compute in: what 4-bit kernels do block by block, without
their own rounding, and on a CPU several times faster.
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
from lora_jobs.pretrained import read_config
from lora_jobs.torchruntime import quiet_stdout


class NotApplicable(Exception):
    """A condition that cannot be measured on these files; the rest can. `str()` says why."""


def on_accelerator() -> bool:
    """Whether models run on one."""
    return bool(torch.cuda.is_available())


@contextmanager
def causal_model(folder: Path, dtype: str) -> Iterator[Any]:
    """A model in evaluation mode, on the accelerator if there is one; freed at the end.

    Raises:
        Refused: Transformers cannot load it.
    """
    transformers_logging.disable_progress_bar()
    try:
        with quiet_stdout():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                device_map="auto" if on_accelerator() else None,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **_quantized_loading(folder),
            )
            widen_quantized_layers(model.eval())
    except (OSError, ValueError, KeyError) as error:
        raise Refused(
            Reason.INVALID_INPUT, f"Transformers cannot load {folder.name}: {error}"
        ) from error
    try:
        yield model
    finally:
        del model
        gc.collect()
        if on_accelerator():
            torch.cuda.empty_cache()


def _quantized_loading(folder: Path) -> dict[str, Any]:
    """For a quantized model, the loader whose layers can be widened on every device."""
    quantization = read_config(folder).get("quantization_config")
    if not quantization:
        return {}
    from transformers import AwqConfig, GPTQConfig

    warnings.filterwarnings("ignore", message="You passed `quantization_config`")
    if quantization.get("quant_method") == "awq":
        group_size = quantization["group_size"]
        return {"quantization_config": AwqConfig(group_size=group_size, backend="torch_awq")}
    return {"quantization_config": GPTQConfig(bits=quantization["bits"], backend="gptq_torch")}


def widen_quantized_layers(model: Any) -> None:
    """Put a plain linear layer in the place of every 4-bit one, with the weights it stands for."""
    for name, layer in list(model.named_modules()):
        if not hasattr(layer, "qweight"):
            continue
        weight = _wide_weight(layer)
        linear = torch.nn.Linear(
            weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta"
        )
        linear.weight = torch.nn.Parameter(weight.to(model.dtype).contiguous(), False)
        if layer.bias is not None:
            linear.bias = torch.nn.Parameter(layer.bias.to(model.dtype), False)
        model.set_submodule(name, linear)


def _wide_weight(layer: Any) -> torch.Tensor:
    """The (out, in) weight that a 4-bit layer computes with."""
    if hasattr(layer, "g_idx") and layer.g_idx is not None:
        # From the class: the loader has put a compiled version on the instance.
        weight: torch.Tensor = type(layer).dequantize_weight(layer)
        return weight.T
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    packed = (layer.qweight, layer.qzeros, layer.scales, layer.bits, layer.group_size)
    wide: torch.Tensor = dequantize_gemm(*packed)
    return wide.T


def with_adapters(base: Any, adapters: Sequence[Path], weights: Sequence[float] = ()) -> Any:
    """The base model with the adapters unmerged, all active; `base` itself is changed.

    PEFT only warns of keys that it did not find a place for, and then measures the base.

    Args:
        base: What they were trained on.
        adapters: Their folders.
        weights: A factor of each adapter's update; empty where all are 1.

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
            # PEFT imports gptqmodel here, which presents itself on stdout.
            with quiet_stdout(), warnings.catch_warnings():
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
    for name, weight in zip(names, weights, strict=bool(weights)):
        _weigh(model, name, weight)
    return model.eval()


def _weigh(model: Any, adapter: str, weight: float) -> None:
    """PEFT's own factor of a layer's update is its scaling; the merge weighs the same."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and adapter in module.scaling:
            module.scaling[adapter] *= weight


def vocabulary_size(model: Any) -> int:
    """Rows of the embedding: token ids are below it."""
    return int(model.get_input_embeddings().weight.shape[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
