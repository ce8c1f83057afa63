"""Which tools made a result: recorded beside it, never hashed into its identity."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from lora_api.jobcontract import IMAGE_ENV

_TOOLS = ("lora-operator", "torch", "transformers", "peft", "gptqmodel", "vllm", "safetensors")


def tool_versions() -> dict[str, str]:
    """Versions of what is installed, and the image; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for tool in _TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    if image := os.environ.get(IMAGE_ENV):
        found["image"] = image
    return found
