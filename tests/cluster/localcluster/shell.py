"""Running other programs: one helper, errors with the command and its output."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster.console import ClusterError

# Debian keeps iptables, runc and ip where an ordinary user's PATH does not look.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    hint: str = "",
) -> str:
    """Runs a program to its end and returns its stdout; raises with its output when it fails."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, env=env, cwd=cwd, input=stdin, capture_output=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed. {hint}".strip()) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"no end after {timeout} s: {_shown(words)}. {hint}".strip()) from error
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise ClusterError(
            f"exit {done.returncode} from: {_shown(words)}\n{output[-3000:]}\n{hint}".strip()
        )
    return done.stdout.decode(errors="replace")


def succeeds(*argv: str | Path, timeout: float | None = 30) -> bool:
    """Whether a program exits 0; for questions, never for work."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, capture_output=True, timeout=timeout, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def logged(argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None) -> None:
    """Runs a slow program with its output in a file; raises with the end of that file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    with log.open("ab") as out:
        out.write(f"$ {_shown(words)}\n".encode())
        out.flush()
        code = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env,
            check=False,
        ).returncode  # fmt: skip
    if code != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise ClusterError(f"exit {code} from: {_shown(words)}\n{end}\nFull log: {log}")


def which(name: str) -> str | None:
    """A program's path, also in the folders that only root's PATH has."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def _shown(words: Sequence[str]) -> str:
    text = shlex.join(words)
    return text if len(text) < 400 else text[:400] + " ..."
