"""`lora-jobs`: the stage programs by hand, the line without a cluster, and the entry point of Jobs.

Exit codes are those of `lora_api.jobcontract.ExitCode`: parsers exit with 2 on a usage error, which
would read as a refused input, so that is mapped to 64 here.
"""

import sys
from importlib import import_module

import typer

from lora_api.jobcontract import ExitCode
from lora_jobs.errors import StageError

VERBS: tuple[str, ...] = (
    "merge",
    "fetch",
    "publish",
    "run",
    "stage",
    "quantize",
    "evaluate",
    "report",
    "compare",
    "benchmark",
    "import-benchmark",
    "import-lm-eval",
    "verify",
    "provenance",
    "gc",
    "gc-unreleased",
)
"""Each is the function of that name in `lora_jobs.commands.<verb>`, a hyphen being an underscore;
heavy imports inside it."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Merge a LoRA adapter, quantize it, measure it, judge it, publish it.",
)


@app.callback()
def _root() -> None:
    """Merge a LoRA adapter, quantize it, measure it, judge it, publish it."""


# A stage starts a dozen times a run: a verb that is named is the only one that is imported.
for _verb in [word for word in sys.argv[1:2] if word in VERBS] or VERBS:
    _name = _verb.replace("-", "_")
    app.command(name=_verb)(getattr(import_module(f"lora_jobs.commands.{_name}"), _name))


def main() -> None:
    """Run a verb and leave with the contract's exit code."""
    try:
        app()
    except StageError as error:
        print(f"{error.reason}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as leave:
        sys.exit(ExitCode.USAGE if leave.code == ExitCode.REFUSED else leave.code)


if __name__ == "__main__":
    main()
