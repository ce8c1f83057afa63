"""`lora-jobs`: the stage programs by hand, the line without a cluster, and the entry point of Jobs.

Exit codes are those of `lora_api.jobcontract.ExitCode`: parsers exit with 2 on a usage error, which
would read as a refused input, so usage errors are mapped to 64 here.
"""

import sys
from importlib import import_module

import click
import typer

from lora_api.jobcontract import ExitCode
from lora_jobs.errors import StageError

VERBS = (
    "run",
    "stage",
    "resolve",
    "merge",
    "quantize",
    "evaluate",
    "benchmark",
    "report",
    "publish",
    "fetch",
    "verify",
)
"""Each is the function of that name in `lora_jobs.commands.<verb>`, imported when it is called."""


class _LazyGroup(typer.core.TyperGroup):
    """Loads a verb's module only when that verb is called, so that `--help` needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"lora_jobs.commands.{cmd_name}")
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name=cmd_name)(getattr(module, cmd_name))
        command: click.Command = typer.main.get_command(single)
        return command


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Merge a LoRA adapter, quantize it, measure it, judge it, publish it.",
)


@app.callback()
def _root() -> None:
    """Merge a LoRA adapter, quantize it, measure it, judge it, publish it."""


def main() -> None:
    """Run a verb and leave with the contract's exit code."""
    try:
        app(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except StageError as error:
        print(f"{error.reason}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
