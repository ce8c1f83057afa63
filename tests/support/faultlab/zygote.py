"""Starts operator processes fast: has all imported, and forks one for each line on stdin.

A child is a process of its own in every respect, and can be killed as one. Lines in:
`{"environment": {...}, "arguments": [...], "log": path}`; lines out: `{"started": pid}` in their
order and `{"ended": pid, "code": n}`.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any

from lora_operator.__main__ import main

_PR_SET_PDEATHSIG = 1


def serve() -> None:
    """Until stdin ends."""
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    # Read unbuffered: a signal handler may run between two lines, and a child inherits no half.
    while line := _line():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            _become_operator(json.loads(line))
        _say({"started": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _line() -> bytes:
    read = bytearray()
    while not read.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        read += byte
    return bytes(read)


def _become_operator(order: dict[str, Any]) -> None:
    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(order["environment"])
        main(order["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(document: dict[str, int]) -> None:
    os.write(1, json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    serve()
