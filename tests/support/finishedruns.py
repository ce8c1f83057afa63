"""A store in which a run has come to its end with fake stages, and what comes after it."""

import shutil
from pathlib import Path
from typing import Any

from localruns import LocalSetting
from lora_api.jobcontract import StageRequest, StageResult
from lora_api.line import Line, walk
from lora_api.requests import StageRequests
from lora_jobs.runner import run_request
from resolving import requests_of, resolve


class Finished:
    """A line that is measured, with nothing published; needs LORA_LOCAL_RUN in this process."""

    def __init__(self, folder: Path, worse: str) -> None:
        self.folder = folder
        self.setting = LocalSetting(folder)
        self.setting.run(FAKE_STAGES_WORSE=worse)
        self.forget_releases()
        requests = requests_of(self.setting.spec)
        self.resolved = resolve(self.setting.spec, folder / "work", "local")
        known = {r.input_hash: r for r in self.resolved.done}
        pins = {name: pin.digest for name, pin in self.resolved.pins.items()}
        self.line: Line = walk(
            requests.spec, "demo", pins, self.resolved.image, lambda c: known.get(c.input_hash)
        )
        self.publication = requests.publish(self.line, self.resolved.pins, self.resolved.image)
        self.report = requests.report(self.line, self.resolved.pins, self.resolved.image)

    @property
    def place(self) -> Path:
        """Where the releases of the object lie."""
        return self.folder / "store/team/releases/demo"

    @property
    def written(self) -> dict[str, bytes]:
        """The documents there."""
        return {p.relative_to(self.place).as_posix(): p.read_bytes() for p in self.files()}

    def files(self) -> list[Path]:
        """Of the documents there."""
        return sorted(self.place.rglob("*.json"))

    def forget_releases(self) -> None:
        """As if nothing had been published yet."""
        shutil.rmtree(self.place, ignore_errors=True)

    def requests(self, provenance: dict[str, Any] | None = None) -> StageRequests:
        """The object's requests, with this `spec.provenance`."""
        return requests_of(self.setting.spec | ({"provenance": provenance} if provenance else {}))

    def publish(
        self, request: StageRequest | None = None, provenance: dict[str, Any] | None = None
    ) -> StageResult:
        """Publish the line's release, or carry out another request."""
        resolved = self.resolved
        if request is None:
            request = self.requests(provenance).publish(self.line, resolved.pins, resolved.image)
        assert request is not None
        return run_request(request, self.folder / "work")
