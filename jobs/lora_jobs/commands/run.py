"""`lora-jobs run`: the whole line on this machine."""

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

EXIT_NOT_PASSED = 1


def run(
    file: Annotated[Path, typer.Argument(help="YAML with one LoRADeployment.", exists=True)],
    store: Annotated[
        str, typer.Option(help="Folder or s3://BUCKET/PREFIX; default is spec.artifact.uri.")
    ] = "",
    name: Annotated[str, typer.Option(help="Instead of metadata.name.")] = "",
    profiles: Annotated[
        Path | None,
        typer.Option(help="Values of the chart, for an object with spec.profile.", exists=True),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for inputs and logs; default is a temporary one.")
    ] = None,
) -> None:
    """Take a LoRADeployment from its sources to a published, judged model, without a cluster.

    The stages run one after the other as processes on this machine; what the store holds already
    is not done again. file://./PATH in the YAML is relative to it. S3 keys come from the
    environment or profile as AWS tools take them, or from LORA_CREDENTIALS_DIR.

    Ends with 0 when the gates passed, 1 when they did not, 2 when the input is refused and 3 when
    something outside must change first.
    """
    from rich.console import Console

    from lora_jobs.localrun import LocalRun, StageCrashed
    from lora_jobs.localview import ConsoleView, print_outcome
    from lora_jobs.manifest import read_manifest
    from lora_jobs.termination import end_promptly_on_sigterm

    end_promptly_on_sigterm()
    uri = store if "://" in store or not store else f"file://{Path(store).resolve()}"
    manifest = read_manifest(file, uri, name, profiles)
    console = Console()
    folder = nullcontext(str(work.resolve())) if work else tempfile.TemporaryDirectory("-lora-run")
    with folder as place:
        try:
            with ConsoleView(console) as view:
                outcome = LocalRun(manifest, Path(place), view).run()
        except StageCrashed as crash:
            print(crash, file=sys.stderr)
            sys.exit(EXIT_NOT_PASSED)
    print_outcome(console, outcome)
    if not outcome.passed:
        sys.exit(EXIT_NOT_PASSED)
