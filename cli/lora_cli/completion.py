"""`kubectl_complete-lora`: what kubectl runs to complete `kubectl lora ...`.

Its answer is cobra's: a word a line, then `:4` (no file names). The words are those of typer's own
completion, asked through the variables that its shell scripts set.
"""

import io
import os
import sys
from contextlib import redirect_stdout, suppress

from lora_cli.app import app

_PROGRAM = "kubectl-lora"
_NO_FILE_NAMES = ":4"


def words(arguments: list[str]) -> list[str]:
    """Completions of the last argument, which may be empty."""
    # Typer splits the line like a shell; an empty last word would be lost.
    os.environ |= {
        "_KUBECTL_LORA_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join([_PROGRAM, *arguments]),
        "COMP_CWORD": str(len(arguments)),
    }
    answer = io.StringIO()
    with redirect_stdout(answer), suppress(SystemExit):
        app(prog_name=_PROGRAM)
    return answer.getvalue().split()


def main() -> None:
    """Answer kubectl."""
    print(*words(sys.argv[1:]), _NO_FILE_NAMES, sep="\n")


if __name__ == "__main__":
    main()
