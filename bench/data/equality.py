"""Which part of the merged weights of one layer is round(fp64), by arithmetic of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

RANK, SCALING = 16, 2.0
Array = npt.NDArray[np.float64]


def main(work: Path) -> None:
    """Print the fraction."""
    same = total = 0
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        module = f"model.layers.0.{name}"
        key = f"base_model.model.{module}"
        a = _read(work / "adapter", f"{key}.lora_A.weight")
        b = _read(work / "adapter", f"{key}.lora_B.weight")
        exact = _read(work / "base", f"{module}.weight") + SCALING * (b @ a)
        merged = _read(work / "ours", f"{module}.weight")
        same += int((merged == _to_bf16(exact)).sum())
        total += exact.size
    print(same / total)


def _read(folder: Path, name: str) -> Array:
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            tensor = json.loads(stream.read(length)).get(name)
            if tensor:
                begin, end = tensor["data_offsets"]
                stream.seek(8 + length + begin)
                bits = np.frombuffer(stream.read(end - begin), np.uint16).astype(np.uint32)
                values = (bits << np.uint32(16)).view(np.float32).astype(np.float64)
                return values.reshape(tensor["shape"])
    raise KeyError(name)


def _to_bf16(values: Array) -> Array:
    """Ties to even: bf16 keeps 8 significant bits."""
    _, exponents = np.frexp(values)
    unit = np.ldexp(1.0, np.maximum(exponents - 8, -133))
    rounded: Array = np.rint(values / unit) * unit
    return rounded


if __name__ == "__main__":
    main(Path(sys.argv[1]))
