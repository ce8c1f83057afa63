"""A namespace with an operator, a stand-in kubelet and canned stages: the whole control loop.

with OperatorStage(plane, kubectl, folder) as stage:
    stage.apply()
    stage.wait_for("Ready", "True")
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders import spec_document
from canned_stages import CannedStages
from kubectl import Kubectl, KubectlError
from localcluster.controlplane import ControlPlane
from lora_api import API_VERSION, KIND
from lora_api.naming import LABEL_NAME, LABEL_RELEASE
from operator_process import OperatorProcess
from stand_in_kubelet import StandInKubelet

_NUMBERS = itertools.count(1)
NAME = "demo"


class OperatorStage:
    """One object `demo` in a namespace of its own, under the Pod Security level `restricted`."""

    def __init__(
        self, plane: ControlPlane, kubectl: Kubectl, folder: Path, **settings: str
    ) -> None:
        namespace = f"team-{next(_NUMBERS)}"
        level = "pod-security.kubernetes.io/enforce"
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": namespace, "labels": {level: "restricted"}}}
        )  # fmt: skip
        self.kubectl = kubectl.within(namespace)
        self.stages = CannedStages()
        self.serving_pods_start = True
        self._ready_pods: set[str] = set()
        self._lost: set[str] = set()
        self.operator = self.another_operator(plane, folder / "operator", **settings)
        self._kubelet = StandInKubelet(plane.api, namespace, self.stages.run, self._is_ready)

    def another_operator(
        self, plane: ControlPlane, folder: Path, **settings: str
    ) -> OperatorProcess:
        """An operator for this namespace, not started."""
        return OperatorProcess(self.kubectl, plane.server, folder, settings)

    def __enter__(self) -> "OperatorStage":
        self._kubelet.__enter__()
        self.operator.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.operator.__exit__(*error)
        self._kubelet.__exit__(*error)

    def _is_ready(self, pod: dict[str, Any]) -> bool:
        """A pod that is Ready stays so, until its release is lost."""
        name = pod["metadata"]["name"]
        if pod["metadata"]["labels"].get(LABEL_RELEASE) in self._lost:
            return False
        if self.serving_pods_start:
            self._ready_pods.add(name)
        return name in self._ready_pods

    def lose_pods(self, release: str) -> None:
        """No pod of this release is Ready any more."""
        self._lost.add(release)

    def apply(self, **changes: Any) -> None:
        """Apply the small object with changes by dotted path."""
        self.kubectl.apply(
            {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": NAME},
             "spec": spec_document(**changes)}
        )  # fmt: skip

    def object(self) -> dict[str, Any]:
        """The LoRADeployment."""
        return self.kubectl.get("lora", NAME)

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition, empty while there is none."""
        return _condition(self.object(), kind)

    def serves(self) -> str:
        """The release that the Service selects; empty without a Service."""
        try:
            service = self.kubectl.get("service", NAME)
        except KubectlError:
            return ""
        return str(service["spec"]["selector"].get(LABEL_RELEASE, ""))

    def jobs(self) -> dict[str, str]:
        """Name -> uid of the stage Jobs that are there."""
        items = self.kubectl.items("jobs")
        return {j["metadata"]["name"]: j["metadata"]["uid"] for j in items}

    def children(self) -> list[str]:
        """Names of all that is made for objects."""
        kinds = "jobs,pods,deployments,services,poddisruptionbudgets"
        return [c["metadata"]["name"] for c in self.kubectl.items(kinds, LABEL_NAME)]

    def has_unfinished_jobs(self) -> bool:
        """Whether a stage Job has neither completed nor failed."""
        jobs = self.kubectl.items("jobs")
        ended = ("Complete", "Failed")
        return not all(
            any(c["type"] in ended for c in j["status"].get("conditions", [])) for j in jobs
        )

    def job_of(self, stage: str) -> str:
        """Name of the only Job of a stage."""
        (job,) = self.kubectl.items("jobs", f"lora-operator.dev/stage={stage}")
        return str(job["metadata"]["name"])

    def events(self) -> list[tuple[str, str]]:
        """(type, reason) of our Events about the object."""
        found = self.kubectl.items("events")
        items = [e for e in found if e["involvedObject"]["kind"] == KIND]
        return [(e["type"], e["reason"]) for e in items]

    def wait_for(self, kind: str, status: str, reason: str = "", seconds: float = 60) -> None:
        """Until a condition has that status, and reason if one is given, for this generation."""

        def holds() -> bool:
            document = self.object()
            found, generation = _condition(document, kind), document["metadata"]["generation"]
            return (
                found.get("status") == status
                and found.get("reason", "") == (reason or found.get("reason", ""))
                and found.get("observedGeneration") == generation
            )

        self.until(f"{kind}={status} {reason}".strip(), holds, seconds)

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Poll until it holds.

        Raises:
            AssertionError: Not in time; with the object's story and the operator's log.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"not in {seconds:.0f} s: {what}\n{self.story()}")
            time.sleep(0.2)

    def stays(self, what: str, holds: Callable[[], bool], seconds: float = 3) -> None:
        """Poll that it holds all the time.

        Raises:
            AssertionError: It ceased to.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert holds(), f"ceased: {what}\n{self.story()}"
            time.sleep(0.1)

    def story(self) -> str:
        """What happened, for a failed assertion."""
        return (
            f"{self.kubectl('get', 'lora,jobs,pods,deployments,services', '-o', 'wide')}\n"
            f"{self.kubectl('get', 'lora', NAME, '-o', 'jsonpath={.status}')}\n"
            f"{self.operator.log[-4000:]}"
        )


def _condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = document.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})
