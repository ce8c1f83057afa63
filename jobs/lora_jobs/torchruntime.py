"""How torch, transformers and gptqmodel are set up before one of them does any work.

gptqmodel reads its settings from the environment when it is imported, which transformers and peft
do on their own; so `prepare` comes before a model is loaded.
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
    """Set what gptqmodel reads, unless it is set already."""
    workers = min(MOST_WORKERS, max(LEAST_WORKERS, (os.cpu_count() or 1) // 2))
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(workers))


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
