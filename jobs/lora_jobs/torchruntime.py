"""How torch, transformers and gptqmodel are set up before one of them does any work.

gptqmodel reads its settings from the environment when it is imported, which transformers and peft
do on their own; so `prepare` comes before a model is loaded.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

LEAST_WORKERS = 2
"""With one worker, gptqmodel's thread pool waits for itself."""
MOST_WORKERS = 12


def prepare() -> None:
    """Set what gptqmodel reads, unless it is set already."""
    workers = min(MOST_WORKERS, max(LEAST_WORKERS, (os.cpu_count() or 1) // 2))
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(workers))


@contextmanager
def stdout_for_progress() -> Iterator[None]:
    """Send what libraries print to stderr: stdout is for our progress lines and results."""
    with redirect_stdout(sys.stderr):
        yield
