"""`make audit` audits every lock; what it is told by the network is no test's business."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LOCKS = sorted((REPOSITORY / "requirements").glob("*.lock"))
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def command() -> list[str]:
    """What the make target runs, as words without the program."""
    shown = subprocess.run(
        ["make", "--dry-run", "audit"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    [line] = [x for x in shown.stdout.replace("\\\n", " ").splitlines() if "/pip-audit" in x]
    return shlex.split(line)[1:]


def test_every_lock_is_audited() -> None:
    words = command()
    audited = [words[at + 1] for at, word in enumerate(words) if word == "-r"]
    assert audited == [str(lock.relative_to(REPOSITORY)) for lock in LOCKS]


def test_the_tool_takes_the_command_and_finds_every_pin_without_resolving() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *command(), "--dry-run"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pins = {pin for lock in LOCKS for pin in _PIN.findall(lock.read_text())}
    assert f"would have audited {len(pins)} packages" in done.stderr
