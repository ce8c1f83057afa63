"""`kubectl lora` as users run it: a process of its own, with the kubectl that a test chooses."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_SCRIPT = '#!/bin/sh\nexec {command} "$@"\n'
_RECORDER = """\
import json, sys
from pathlib import Path
folder, words = Path(sys.argv[1]), sys.argv[2:]
with (folder / "asked").open("a") as asked:
    asked.write(json.dumps(words) + "\\n")
if "logs" in words:
    print("the log")
elif "jsonpath={.items[*].metadata.name}" in words:
    print("demo", "demon", "other")
elif "get" in words and "job" in words:
    print((folder / "job").read_text() if (folder / "job").exists() else "")
elif "get" in words:
    print((folder / "object").read_text())
"""


@dataclass(frozen=True)
class Plugin:
    """The plugin with one kubectl on its PATH.

    Attributes:
        folder: Of the executable `kubectl`.
    """

    folder: Path

    @classmethod
    def with_kubectl(cls, folder: Path, *command: str) -> "Plugin":
        """A plugin whose kubectl is this command."""
        script = folder / "kubectl"
        program = shutil.which(command[0]) or command[0]  # by its name it would find the script
        script.write_text(_SCRIPT.format(command=" ".join((program, *command[1:]))))
        script.chmod(0o755)
        return cls(folder)

    def __call__(self, *words: str, module: str = "lora_cli", **environment: str) -> Json:
        """Run it: exit code, stdout and stderr."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env={**os.environ, "PATH": f"{self.folder}:/usr/bin:/bin", "COLUMNS": "200"}
            | environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


class RecordedKubectl:
    """A kubectl that answers with one object and writes down what it was asked."""

    def __init__(self, folder: Path, document: Json) -> None:
        (folder / "recorder.py").write_text(_RECORDER)
        (folder / "object").write_text(json.dumps(document))
        self._folder = folder
        self.plugin = Plugin.with_kubectl(
            folder, sys.executable, str(folder / "recorder.py"), str(folder)
        )

    def keep_job(self, name: str) -> None:
        """Let every Job exist."""
        (self._folder / "job").write_text(name)

    @property
    def asked(self) -> list[list[str]]:
        """The words of every call."""
        file = self._folder / "asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def written(self) -> list[list[str]]:
        """The calls that write."""
        return [words for words in self.asked if not {"get", "logs"} & set(words)]
