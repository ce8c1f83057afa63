"""`make demo`: one object becomes a served, quantized, gated model; then two that must not.

1. A good adapter: every stage live with its ETA, the four-condition table, a completion.
2. The wrong adapter: a gate fails, and the first release still answers.
3. An outlier base: group 128 fails on quality, the candidate search ends at group 32.

It leaves the cluster up for exploring; `make demo-down` removes it. A second run repeats no stage.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

import tiny_model
from kubectl import Kubectl
from lora import WORKING
from lora_api.times import rfc3339
from lora_jobs.localview import conditions_table
from testbed import REPOSITORY, Testbed, TestbedError

NAMESPACE, BUCKET, SECRET = "lora-demo", "demo", "demo-s3"
EXAMPLES = REPOSITORY / "examples"
OUTPUT = REPOSITORY / "out" / "demo"
SOURCES = (
    "base", "adapter", "wrong-adapter", "outlier-base", "outlier-adapter",
    "calibration.jsonl", "task.jsonl", "general.jsonl",
)  # fmt: skip
DEADLINE_SECONDS = 25 * 60
PROMPT = "def read_lines(path):\n    "
STYLES = {"Succeeded": "green", "Running": "cyan", "Failed": "red", "Waiting": "yellow"}

# A log has no width of its own, and a line cut in two is hard to search.
console = Console(width=None if sys.stdout.isatty() else 140)
Status = dict[str, Any]


def main() -> None:
    """Run the three acts."""
    started, since = time.monotonic(), rfc3339(time.time())
    with ThreadPoolExecutor() as pool:
        # Training keeps one core busy, building images mostly the network and the disk.
        model = pool.submit(tiny_model.ensure)
        testbed = pool.submit(Testbed.up).result()
        folder = model.result().folder
    console.rule("the operator")
    testbed.install_operator()
    kubectl = testbed.prepare_namespace(NAMESPACE, SECRET)
    for name in SOURCES:
        testbed.upload(folder / name, BUCKET, name)
    if not kubectl.exists("lora", "demo"):
        # An object made anew keeps to the image of its first run, which a newer build has replaced.
        testbed.empty(f"s3://{BUCKET}/store/{NAMESPACE}/pins")
    console.print(f"operator, bucket and models are ready after {_minutes(started)}")

    console.rule("1. a good adapter")
    status = apply_and_watch(kubectl, EXAMPLES / "demo.yaml", "demo", SERVES)
    show_result(testbed, "demo", status, since)
    url = service_url(kubectl, "demo")
    ask(url, "demo")

    console.rule("2. the wrong adapter, same object")
    wrong = apply_and_watch(kubectl, EXAMPLES / "demo-wrong-adapter.yaml", "demo", REJECTED)
    show_result(testbed, "demo-wrong-adapter", wrong, since)
    console.print("the first release still answers:")
    ask(url, "demo")

    console.rule("3. a base that 4 bits in groups of 128 cannot hold")
    outlier = apply_and_watch(kubectl, EXAMPLES / "demo-outlier.yaml", "demo-outlier", SERVES)
    show_result(testbed, "demo-outlier", outlier, since)
    chosen = outlier["run"]["candidate"]
    console.print(f"published candidate: [bold]{chosen}[/]")

    console.rule(f"done in {_minutes(started)}")
    console.print(
        'explore:  eval "$(python3 tests/cluster/localcluster_cli.py env)"; '
        "kubectl -n lora-demo get lora; kubectl -n lora-demo describe lora demo\n"
        "remove:   make demo-down"
    )


def apply_and_watch(kubectl: Kubectl, file: Path, name: str, expected: "Expectation") -> Status:
    """Apply the object and show its stages until what is expected is there.

    Raises:
        TestbedError: It ended otherwise, or not in time.
    """
    console.print(f"kubectl apply -f {file.relative_to(REPOSITORY)}")
    kubectl("apply", "-f", str(file))
    deadline = time.monotonic() + DEADLINE_SECONDS
    told = {s: state for s, state, _ in staged(kubectl.get("lora", name).get("status", {}))}
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while time.monotonic() < deadline:
            document = kubectl.get("lora", name)
            status: Status = document.get("status", {})
            live.update(stages_table(status))
            if not console.is_terminal:  # a log has no live table: a line at every transition
                tell_transitions(status, told)
            current = status.get("observedGeneration") == document["metadata"]["generation"]
            if current and expected.is_there(status):
                return status
            if current and expected.is_missed(status):
                break
            time.sleep(1)
    stalled = condition(status, "Ready")
    raise TestbedError(f"{name} ended as {stalled.get('reason')}: {stalled.get('message')}")


def condition(status: Status, kind: str) -> dict[str, str]:
    """A condition; Unknown when it is absent."""
    found = (c for c in status.get("conditions", []) if c["type"] == kind)
    return next(found, {"status": "Unknown", "reason": "", "message": ""})


def is_serving(status: Status) -> bool:
    """What is asked for serves."""
    return condition(status, "Ready")["status"] == "True"


def is_stalled(status: Status) -> bool:
    """Nothing more will happen by itself, and what is asked for does not serve."""
    return condition(status, "Stalled")["status"] == "True"


def is_rejected(status: Status) -> bool:
    """The gates said no."""
    return condition(status, "GatesPassed")["status"] == "False"


def is_reported(status: Status) -> bool:
    """The report is written; it follows the verdict."""
    return bool(status.get("benchmark", {}).get("reportUri"))


@dataclass(frozen=True)
class Expectation:
    """How an act shall end, and how it is seen that it will not."""

    is_there: Callable[[Status], bool]
    is_missed: Callable[[Status], bool]


SERVES = Expectation(is_serving, is_stalled)
REJECTED = Expectation(
    lambda status: is_rejected(status) and is_reported(status),
    lambda status: is_serving(status) or (is_stalled(status) and not is_rejected(status)),
)


def stages_table(status: Status) -> Group:
    """The stages as they are now."""
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "state", "progress", "message"):
        table.add_column(heading)
    for stage, state, entry in staged(status):
        table.add_row(
            stage,
            Text(state, style=STYLES.get(entry["state"], "")),
            progress_text(entry.get("progress")),
            entry.get("message", "")[:70],
        )
    ready = condition(status, "Ready")
    return Group(table, Text(f"{status.get('phase', '')}: {ready['message']}"[:160], style="dim"))


def staged(status: Status) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each stage with its candidate, its state, and all that status says of it."""
    for entry in status.get("stages", []):
        name = f"{entry['name']} {entry.get('candidate', '')}".rstrip()
        yield name, "Reused" if entry.get("reused") else entry["state"], entry


def tell_transitions(status: Status, told: dict[str, str]) -> None:
    """Print the stages that are in another state than was told."""
    for stage, state, entry in staged(status):
        if told.get(stage) != state:
            told[stage] = state
            message = entry.get("message", "")[:100]
            console.print(f"  {stage}: {state}  {message}".rstrip(), highlight=False)


def progress_text(progress: dict[str, Any] | None) -> str:
    """`3/8 layers, 21 s left`."""
    if not progress or not progress.get("total"):
        return ""
    eta = progress.get("etaSeconds")
    left = f", {eta} s left" if eta is not None else ""
    return f"{progress['done']}/{progress['total']} {progress['unit']}{left}"


def show_result(testbed: Testbed, name: str, status: Status, since: str) -> None:
    """The four-condition table, the gates and where the report is."""
    benchmark = status["benchmark"]
    measurements = {row["metric"]: row for row in benchmark["results"]}
    console.print(conditions_table(measurements, title="Four conditions, measured on CPU"))
    console.print(speed_note(benchmark["results"]))
    for gate in benchmark["gates"]:
        style = {"Passed": "green", "Failed": "red"}.get(gate["verdict"], "yellow")
        console.print(
            f"  {gate['name']:16} [{style}]{gate['verdict']:13}[/] {gate.get('observed', ''):>9}"
            f"  limit {gate['limit']}  {gate['mode']}  {gate.get('message', '')}"
        )
    working = [s for s in status["stages"] if s["name"] in WORKING]
    ran = [s for s in working if not s.get("reused") and s["startedAt"] >= since]
    if not ran:
        console.print("no stage ran: every result was there already")
    elif len(ran) < len(working):
        console.print(f"{len(working) - len(ran)} of {len(working)} stages were there already")
    console.print(f"report: {download_report(testbed, name, benchmark['reportUri'])}")


def speed_note(results: list[dict[str, str]]) -> str:
    """What the measured speeds mean on a CPU, where no kernel was made for 4-bit weights."""
    speeds = next((r for r in results if r["metric"].startswith("OutputTokensPerSecond")), {})
    if not speeds.get("base") or not speeds.get("quantized"):
        return ""
    ratio = float(speeds["quantized"]) / float(speeds["base"])
    return (
        f"int4 makes {ratio:.2f} times the base's tokens per second on this CPU; speed gates are "
        "DryRun here, only an accelerator's figures decide"
    )


def download_report(testbed: Testbed, name: str, uri: str) -> Path:
    """The report as a local file that a browser opens."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    target = OUTPUT / f"{name}.html"
    testbed.s3().download_file(bucket, key, str(target))
    return target


def service_url(kubectl: Kubectl, name: str) -> str:
    """The Service's address, which this host reaches."""
    spec = kubectl.get("service", name)["spec"]
    return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"


def ask(url: str, model: str) -> None:
    """One completion, printed."""
    answer = httpx.post(
        f"{url}/v1/completions", timeout=120,
        json={"model": model, "prompt": PROMPT, "max_tokens": 24, "temperature": 0},
    ).raise_for_status()  # fmt: skip
    completion = answer.json()["choices"][0]["text"].rstrip()
    console.print(Text(PROMPT, style="bold") + Text(completion))


def _minutes(started: float) -> str:
    seconds = int(time.monotonic() - started)
    return f"{seconds // 60} min {seconds % 60} s"


if __name__ == "__main__":
    try:
        main()
    except TestbedError as error:
        sys.exit(f"demo: {error}")
