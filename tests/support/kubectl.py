"""kubectl for tests: what users type, and its answers as JSON.

What is only read is asked of the API server itself where a kubeconfig is given: see `apireads`.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apireads import Unanswered, reads_by


class KubectlError(AssertionError):
    """kubectl refused; the message is its stderr."""


@dataclass(frozen=True)
class Kubectl:
    """One cluster and namespace.

    Attributes:
        command: kubectl, e.g. `("kubectl",)` or a multicall binary with its component.
        kubeconfig: None uses the current context.
    """

    command: tuple[str, ...]
    kubeconfig: Path | None = None
    namespace: str = "default"

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return its stdout.

        Raises:
            KubectlError: It exited non-zero.
        """
        flags = ["--namespace", self.namespace]
        if self.kubeconfig:
            flags += ["--kubeconfig", str(self.kubeconfig)]
        done = subprocess.run(
            [*self.command, *flags, *arguments],
            input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def within(self, namespace: str) -> "Kubectl":
        """The same cluster, another namespace."""
        return Kubectl(self.command, self.kubeconfig, namespace)

    def apply(self, *documents: dict[str, Any]) -> str:
        """Apply objects as `kubectl apply -f -` does."""
        return self("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object.

        Raises:
            KubectlError: There is none.
        """
        if self.kubeconfig is None:
            found: dict[str, Any] = json.loads(self("get", kind, name, "-o", "json"))
            return found
        try:
            return reads_by(self.kubeconfig).get(kind, self.namespace, name)
        except Unanswered as error:
            raise KubectlError(str(error)) from error

    def items(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind, or of several, their names joined by commas."""
        if self.kubeconfig is None:
            found = json.loads(self("get", kinds, "-l", selector, "-o", "json"))
            items: list[dict[str, Any]] = found["items"]
            return items
        try:
            return reads_by(self.kubeconfig).items(kinds, self.namespace, selector)
        except Unanswered as error:
            raise KubectlError(str(error)) from error

    def exists(self, kind: str, name: str) -> bool:
        """Whether there is one of that name."""
        return any(found["metadata"]["name"] == name for found in self.items(kind))
