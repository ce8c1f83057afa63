"""kubectl as the plugin's only client: every login, proxy and context that it knows just works."""

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any, NoReturn

from lora_api import GROUP, PLURAL

Json = dict[str, Any]
RESOURCE = f"{PLURAL}.{GROUP}"
FIELD_MANAGER = "kubectl-lora"


class KubectlError(Exception):
    """kubectl is not there, or refused; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the options that the user gave.

    Attributes:
        namespace: Empty is the context's own, as for the others.
    """

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def run(self, *arguments: str) -> str:
        """Its stdout.

        Raises:
            KubectlError: There is none, or it exited non-zero.
        """
        try:
            done = subprocess.run(
                self._command(*arguments), capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise KubectlError("kubectl is not on the PATH; install it") from None
        if done.returncode:
            raise KubectlError(done.stderr.strip() or f"kubectl exited with {done.returncode}")
        return done.stdout

    def become(self, *arguments: str) -> NoReturn:
        """Hand the terminal to kubectl, for what streams."""
        command = self._command(*arguments)
        try:
            os.execvp(command[0], command)  # noqa: S606 - no shell is what is wanted
        except FileNotFoundError:
            raise KubectlError("kubectl is not on the PATH; install it") from None

    def lora(self, name: str) -> Json:
        """The LoRADeployment of that name, with who manages its fields.

        Raises:
            KubectlError: There is none, or it may not be read.
        """
        found: Json = json.loads(
            self.run("get", RESOURCE, name, "-o", "json", "--show-managed-fields")
        )
        return found

    def names(self) -> list[str]:
        """Names of all LoRADeployments of the namespace."""
        return self.run("get", RESOURCE, "-o", "jsonpath={.items[*].metadata.name}").split()

    def exists(self, kind: str, name: str) -> bool:
        """Whether there is an object of that name."""
        return bool(self.run("get", kind, name, "--ignore-not-found", "-o", "name").strip())

    def patch(self, name: str, change: Json) -> None:
        """Merge patch of a LoRADeployment, under our own field manager."""
        self.run(
            "patch", RESOURCE, name, "--type=merge", f"--patch={json.dumps(change)}",
            f"--field-manager={FIELD_MANAGER}",
        )  # fmt: skip

    def _command(self, *arguments: str) -> list[str]:
        given = {
            "--namespace": self.namespace,
            "--context": self.context,
            "--kubeconfig": self.kubeconfig,
        }
        options = [word for flag, value in given.items() if value for word in (flag, value)]
        return ["kubectl", *options, *arguments]
