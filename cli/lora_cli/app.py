"""The verbs of `kubectl lora`: options in, kubectl asked, one story out.

Exit codes: 0 done, 1 it could not be done (or belongs into Git), 64 usage error.
"""

import json
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from lora_api.gatespec import GateName
from lora_api.jobcontract import Stage
from lora_api.naming import ANNOTATION_RETRY, deployment_name
from lora_api.runbooks import RUNBOOKS
from lora_api.status import Status
from lora_api.times import rfc3339
from lora_cli import opening, render
from lora_cli.changes import NothingToChange, approval_of, rollback_of, unpinning_of
from lora_cli.gitops import git_patch, owner_of
from lora_cli.kubectl import Kubectl, KubectlError
from lora_cli.story import (
    UnreadableStatus,
    kept_of,
    log_of,
    releases_of,
    status_of,
    story_of,
)

EXIT_NOT_DONE, EXIT_USAGE, _CLICK_USAGE = 1, 64, 2
SERVING = "serving"
_WATCH_SECONDS = 2.0

app = typer.Typer(
    name="kubectl-lora",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Follow LoRADeployments: where they are, why they wait, what was measured.",
)


class Output(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    JSON = "json"


class NotDone(Exception):
    """Why a verb did nothing."""


def _complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    given = {k: ctx.params.get(k) or "" for k in ("namespace", "context", "kubeconfig")}
    try:
        return [n for n in Kubectl(**given).names() if n.startswith(incomplete)]
    except KubectlError:
        return []


def _complete_reason(incomplete: str) -> list[str]:
    return [reason for reason in RUNBOOKS if reason.startswith(incomplete)]


def _complete_stage(incomplete: str) -> list[str]:
    return [word for word in (*Stage, SERVING) if word.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(help="Name of the LoRADeployment.", autocompletion=_complete_name)
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Default is the context's.", show_default=False)
]
Context = Annotated[
    str, typer.Option(help="Context of the kubeconfig; default is the current.", show_default=False)
]
Kubeconfig = Annotated[str, typer.Option(help="File instead of $KUBECONFIG.", show_default=False)]
Form = Annotated[Output, typer.Option("--output", "-o", help="table, or json.")]


@app.command()
def status(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Form = Output.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until Ctrl-C.")] = False,
) -> None:
    """Show stages, progress, gates, what serves, why it waits and what to do."""
    kubectl = Kubectl(namespace, context, kubeconfig)
    story = story_of(kubectl.lora(name), time.time())
    if output is Output.JSON:
        _print_json(story.to_json())
    elif not watch:
        Console().print(render.status(story))
    else:
        with Live(render.status(story)) as screen:
            while True:
                time.sleep(_WATCH_SECONDS)
                screen.update(render.status(story_of(kubectl.lora(name), time.time())))


@app.command()
def report(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Form = Output.TABLE,
    open_: Annotated[
        bool,
        typer.Option("--open", help="In a browser; from a bucket with your own AWS credentials."),
    ] = False,
) -> None:
    """Show the four-condition table, the gates, and where the whole report lies."""
    document = Kubectl(namespace, context, kubeconfig).lora(name)
    measured = status_of(document).benchmark
    if measured is None:
        raise NotDone(f"{name} has no verdict yet; see: kubectl lora status {name}")
    if output is Output.JSON:
        _print_json(measured.to_json())
    else:
        Console().print(render.report(measured))
    if open_ and not measured.report_uri:
        raise NotDone("the report is not written yet")
    if open_:
        opening.show(measured.report_uri, opening.endpoint_of(document["spec"]))


@app.command()
def logs(
    name: Name,
    stage: Annotated[
        str,
        typer.Argument(
            help=f"A stage, or {SERVING}; default is what runs, failed or ran last.",
            autocompletion=_complete_stage,
        ),
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="As it grows.")] = False,
    tail: Annotated[int, typer.Option(help="Last lines only; -1 is all.")] = -1,
) -> None:
    """Show a stage's log, or that of what serves."""
    kubectl = Kubectl(namespace, context, kubeconfig)
    found = status_of(kubectl.lora(name))
    target = (
        _serving_target(found, name) if stage == SERVING else _job_target(kubectl, found, stage)
    )
    options = ["--follow"] if follow else []
    kubectl.become("logs", target, "--all-containers", f"--tail={tail}", *options)


@app.command()
def releases(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Form = Output.TABLE,
) -> None:
    """List the releases that passed, newest first; * marks what serves."""
    found = releases_of(status_of(Kubectl(namespace, context, kubeconfig).lora(name)))
    if output is Output.JSON:
        _print_json([{**release.to_json(), "serves": serves} for release, serves in found])
    else:
        Console().print(render.releases(found) if found else f"{name} has no release yet")


@app.command()
def gc(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Form = Output.TABLE,
    keep: Annotated[
        int | None, typer.Option(min=1, help="As if artifact.keepReleases were this.")
    ] = None,
    _dry_run: Annotated[bool, typer.Option("--dry-run", help="As it always is.")] = True,
) -> None:
    """Show which releases stay in the bucket, and which go. It removes nothing.

    The operator removes what goes, by artifact.keepReleases, once it is 7 days old.
    """
    document = Kubectl(namespace, context, kubeconfig).lora(name)
    found = kept_of(document["spec"], status_of(document), keep)
    if output is Output.JSON:
        _print_json([{**release.to_json(), "stays": why} for release, why in found])
    else:
        Console().print(render.kept(found) if found else f"{name} has no release yet")


@app.command()
def retry(
    name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Try what failed or waits again at once.

    Sets an annotation that is in nobody's Git and that GitOps tools leave alone.
    """
    kubectl = Kubectl(namespace, context, kubeconfig)
    kubectl.patch(name, {"metadata": {"annotations": {ANNOTATION_RETRY: rfc3339(time.time())}}})
    print(f"{name} is tried again; follow it: kubectl lora status {name}")


@app.command()
def suspend(
    name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """End running stages and free their accelerators; what serves stays."""
    _set_suspend(Kubectl(namespace, context, kubeconfig), name, True)


@app.command()
def resume(
    name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Go on after `suspend`."""
    _set_suspend(Kubectl(namespace, context, kubeconfig), name, False)


@app.command()
def rollback(
    name: Name,
    release: Annotated[
        str,
        typer.Argument(help="Its id, or its artifact's digest; default is the newest before."),
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    undo: Annotated[bool, typer.Option("--undo", help="Follow the newest release again.")] = False,
) -> None:
    """Serve an earlier release, which stays until `--undo`; no stage runs for it."""
    kubectl = Kubectl(namespace, context, kubeconfig)
    document = kubectl.lora(name)
    spec, found = document["spec"], status_of(document)
    _change(kubectl, document, unpinning_of(spec) if undo else rollback_of(spec, found, release))
    print(f"{name} changes its release; follow it: kubectl lora status {name} --watch")


@app.command()
def approve(
    name: Name,
    gate: Annotated[GateName, typer.Argument(help="That Failed or is Inconclusive.")],
    reason: Annotated[str, typer.Option(help="For the record: who accepts it, and why.")],
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Accept what a gate says of the present artifact; another one is judged without it."""
    kubectl = Kubectl(namespace, context, kubeconfig)
    document = kubectl.lora(name)
    change = approval_of(document["spec"], status_of(document), gate, reason)
    _change(kubectl, document, change, if_unchanged=True)  # it replaces a list
    print(f"{gate} of {name} is accepted for this artifact; it stands in spec.overrides")


@app.command()
def explain(
    reason: Annotated[
        str, typer.Argument(help="As status says it.", autocompletion=_complete_reason)
    ],
) -> None:
    """Say what a reason means, how to look and how to fix it."""
    known = {name.lower(): name for name in RUNBOOKS}
    if reason.lower() not in known:
        raise NotDone(f"no reason is called {reason}; there are: {', '.join(sorted(RUNBOOKS))}")
    found = known[reason.lower()]
    Console().print(render.runbook(found, RUNBOOKS[found]))


def _set_suspend(kubectl: Kubectl, name: str, value: bool) -> None:
    document = kubectl.lora(name)
    done = "suspended" if value else "not suspended"
    if bool(document["spec"].get("suspend")) is value:
        print(f"{name} is {done} already")
        return
    _change(kubectl, document, {"suspend": value})
    print(f"{name} is {done}")


def _change(
    kubectl: Kubectl, document: dict[str, Any], spec: dict[str, Any], if_unchanged: bool = False
) -> None:
    """Change the spec, or show the change for Git where that holds it."""
    metadata = document["metadata"]
    if owner := owner_of(metadata):
        print(git_patch(metadata, spec), end="")
        raise NotDone(
            f"{metadata['name']} is synced by {owner}, which would undo it: "
            "change it in Git as above"
        )
    read = {"metadata": {"resourceVersion": metadata["resourceVersion"]}} if if_unchanged else {}
    kubectl.patch(metadata["name"], {**read, "spec": spec})


def _serving_target(found: Status, name: str) -> str:
    release = found.serving.release if found.serving else ""
    if not release:
        raise NotDone(f"no release of {name} serves yet; see: kubectl lora status {name}")
    return f"deployment/{deployment_name(name, release)}"


def _job_target(kubectl: Kubectl, found: Status, stage: str) -> str:
    if stage and stage not in {*Stage}:
        raise NotDone(f"no stage is called {stage}; there are: {', '.join((*Stage, SERVING))}")
    entry = log_of(found, stage)
    if entry is None:
        raise NotDone(f"stage {stage} has not run" if stage else "no stage has run yet")
    if entry.reused or not entry.job:
        why = "the store had its result" if entry.reused else f"it is {entry.state}"
        raise NotDone(f"stage {entry.name} has no Job: {why}")
    if not kubectl.exists("job", entry.job):
        raise NotDone(f"Job {entry.job} of stage {entry.name} is gone, and its log with it")
    return f"job/{entry.job}"


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def main() -> None:
    """Run a verb; what went wrong is one line on stderr."""
    try:
        app()
    except (KubectlError, UnreadableStatus, NothingToChange, NotDone, opening.NotOpened) as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_NOT_DONE)
    except KeyboardInterrupt:
        sys.exit(0)
    except SystemExit as leave:
        sys.exit(EXIT_USAGE if leave.code == _CLICK_USAGE else leave.code)


if __name__ == "__main__":
    main()
