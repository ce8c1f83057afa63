"""Compiles the optional kernel of the merge into the wheel, where there is a C compiler."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("jobs/lora_jobs/merging")
SOURCE, LIBRARY = FOLDER / "addition.c", FOLDER / "_addition.so"


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """`addition.c` becomes a library without an ABI of Python's: it is called by ctypes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one of this platform; a pure one without a compiler."""
        root = Path(self.root)
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            self.app.display_warning(f"no C compiler: merges run without {SOURCE.name}, slower")
            return
        flags = ["-O3", "-ffp-contract=fast", "-std=c17", "-Wall", "-shared", "-fPIC", "-s"]
        with tempfile.TemporaryDirectory(dir=root / FOLDER) as scratch:
            fresh = Path(scratch) / LIBRARY.name
            subprocess.run([compiler, *flags, "-o", fresh, root / SOURCE], check=True)
            fresh.replace(root / LIBRARY)  # at once: a merge may be loading it
        build_data["pure_python"] = False
        build_data["tag"] = (
            f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        )
        build_data["artifacts"].append(LIBRARY.as_posix())
