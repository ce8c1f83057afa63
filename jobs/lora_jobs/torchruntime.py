"""How torch and gptqmodel are set up, through the environment, before either is imported.

Both read their settings once, when they are loaded, and transformers and peft load them on their
own. So the packages that use them call `prepare` in their `__init__`, before any of their modules.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

LEAST_WORKERS = 2
"""With one worker, gptqmodel's thread pool waits for itself."""
MOST_WORKERS = 12
SHOWN_CHARACTERS = 4000


def prepare() -> None:
    """Set what torch and gptqmodel read, unless it is set already.

    OpenMP's threads spin while they wait for each other. Where cores are shared or capped, as in a
    pod, they burn the time that the awaited thread needs: forward passes were four times slower.
    """
    workers = min(MOST_WORKERS, max(LEAST_WORKERS, (os.cpu_count() or 1) // 2))
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(workers))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Keep what libraries print: stdout is for our progress lines and results.

    gptqmodel draws bars and tables there, some without a line's end. Its last lines go to stderr
    if the work fails.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    except BaseException:
        print(printed.getvalue()[-SHOWN_CHARACTERS:], file=sys.stderr)
        raise
