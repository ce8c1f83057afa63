"""With this folder on PYTHONPATH, the working stages and the report are the quick ones beside it.

For tests of what stands around the stages: the runner, the store and the local run. Each fake
appends its name to the file in FAKE_STAGES_LOG, so that a test sees what really ran.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_PREFIX = "lora_jobs.stages."


class _FakeStages(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = Path(__file__).with_name(f"fake_{fullname.removeprefix(_PREFIX)}.py")
        if not fullname.startswith(_PREFIX) or not file.exists():
            return None
        return importlib.util.spec_from_file_location(fullname, file)


sys.meta_path.insert(0, _FakeStages())
