"""How a stage program says no: by a typed reason and one line that says what to do.

    StageError
    ├── Refused    exit 2: the input is bad; nothing helps but another input
    └── Waiting    exit 3: the world must change: access, a missing source, an unreachable store

Everything else that is raised is a crash: exit 1, retried.
"""

from typing import ClassVar

from lora_api.jobcontract import ExitCode, Reason, StageFailure

MAX_MESSAGE_CHARACTERS = 1024
"""What the operator shows; names in broken files may be megabytes long."""


class StageError(Exception):
    """A failure with a reason. `str()` is one line: what is wrong and what to do."""

    exit_code: ClassVar[ExitCode]

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(_one_line(message))
        self.reason = reason

    def to_termination_message(self) -> str:
        """What the operator reads of a pod that ended so: a `StageFailure` as JSON."""
        failure = StageFailure(failure=self.reason, message=str(self))
        return failure.model_dump_json(by_alias=True)


class Refused(StageError):
    """The input cannot work."""

    exit_code = ExitCode.REFUSED


class Waiting(StageError):
    """The input may work once the world has changed."""

    exit_code = ExitCode.WAITING


def _one_line(message: str) -> str:
    """Names from files are quoted in messages: what would not print, or move a cursor, is `?`."""
    line = " ".join(message[: 4 * MAX_MESSAGE_CHARACTERS].split())
    return "".join(c if c.isprintable() else "?" for c in line)[:MAX_MESSAGE_CHARACTERS]
