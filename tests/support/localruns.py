"""`lora-jobs run` as a user calls it, with fake stages in its child processes."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tinyfiles import local_spec, write_sources

SUPPORT = Path(__file__).parent


@dataclass
class LocalSetting:
    """A folder with sources, a store and a YAML file."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_sources(self.folder / "sources")
        self.write(self.spec)

    @property
    def spec(self) -> dict[str, Any]:
        return local_spec(self.folder / "sources", self.folder / "store")

    @property
    def file(self) -> Path:
        return self.folder / "demo.yaml"

    def write(self, spec: dict[str, Any], **more: Any) -> None:
        document = {
            "apiVersion": "lora-operator.dev/v1alpha1",
            "kind": "LoRADeployment",
            "metadata": {"name": "demo", "namespace": "team"},
            "spec": spec,
            **more,
        }
        self.file.write_text(yaml.safe_dump(document))

    def run(self, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "lora_jobs", "run", str(self.file), *options],
            env=self.child_environment(**environment), text=True, capture_output=True,
            check=False, timeout=120,
        )  # fmt: skip

    def child_environment(self, **environment: str) -> dict[str, str]:
        own_path = [str(SUPPORT / "fake_stages"), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, own_path))
        own = {"PYTHONPATH": path, "FAKE_STAGES_LOG": str(self.log), "COLUMNS": "200"}
        return os.environ | own | self.environment | environment

    @property
    def log(self) -> Path:
        return self.folder / "ran.log"

    def ran(self) -> list[str]:
        """The working stages that ran since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if line != "report"]
