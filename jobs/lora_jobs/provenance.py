"""Which tools made a result: recorded beside it, never hashed into its identity."""

import platform
from importlib.metadata import PackageNotFoundError, version

_TOOLS = ("lora-operator", "torch", "transformers", "peft", "gptqmodel", "vllm", "safetensors")


def tool_versions() -> dict[str, str]:
    """Versions of what is installed; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for tool in _TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
