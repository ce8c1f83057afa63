"""The main job on a real cluster, with real stages: one object becomes a served, gated model.

One story in the order in which it is told; each test leaves the world as the next one finds it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo_object import demo_object
from leaks import leaks, left_in_bucket, left_in_namespace, logs_of
from lora import WORKING, Asker, Lora, Streamer, until
from lora_jobs.attesting.envelope import opened
from signingkeys import provenance
from testbed import (
    CHART,
    E2E_BUCKET,
    OPERATOR_NAMESPACE,
    PROFILE,
    PROFILE_STORE,
    RELEASE,
    Testbed,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]
NAME = "story"
STORE = PROFILE_STORE
Json = dict[str, Any]


@pytest.fixture(scope="module")
def lora(testbed: Testbed, story_namespace: str) -> Iterator[Lora]:
    testbed.empty(STORE)  # what an earlier session left would be reused, not made
    lora = Lora(testbed.kubectl.within(story_namespace), NAME)
    yield lora
    lora.kubectl("delete", "lora", NAME, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def good(testbed: Testbed) -> Json:
    """It serves and is pinned with a signature only."""
    document = demo_object(testbed, NAME, STORE)
    document["spec"]["provenance"] = provenance(testbed.signer)
    return document


def restart_operator(testbed: Testbed) -> None:
    system = testbed.kubectl.within(OPERATOR_NAMESPACE)
    system("delete", "pod", "-l", "app.kubernetes.io/name=lora-operator", "--wait=false")


def through_vllm(good: Json) -> Json:
    """The same object for another engine, with a short time to drain."""
    document: Json = json.loads(json.dumps(good))
    serving = document["spec"]["serving"]
    serving["runtime"] = "VLLM"
    serving["strategy"] = {"blueGreen": {"bakeTime": "0s", "drainTimeout": "1m"}}
    return document


def that_cannot_start(good: Json) -> Json:
    """The same model under another name, and no memory for an engine."""
    document: Json = json.loads(json.dumps(good))
    serving = document["spec"]["serving"]
    serving["modelName"] = "another-name"
    serving["strategy"] = {"startDeadline": "30s"}
    small = {"limits": {"memory": "96Mi"}, "requests": {"memory": "96Mi"}}
    serving["scheduling"] = serving.get("scheduling", {}) | {"resources": small}
    return document


@contextmanager
def asking(lora: Lora) -> Iterator[tuple[Asker, Asker]]:
    """One client of new connections and one that streams over a kept one, all the time."""
    with Asker(lora.url(), NAME) as short, Streamer(lora.url(), NAME) as long:
        yield short, long


def releases(lora: Lora) -> set[str]:
    """Releases with a Deployment."""
    label = "lora-operator.dev/release"
    deployments = lora.kubectl.items("deployments", f"lora-operator.dev/name={NAME}")
    return {d["metadata"]["labels"][label] for d in deployments}


def verified(lora: Lora) -> set[str]:
    """Releases that status calls verified."""
    return {entry.partition("/")[0] for entry in lora.status.get("verified", ())}


def working_jobs(lora: Lora) -> set[str]:
    return {j["metadata"]["uid"] for j in lora.jobs(*WORKING)}


@pytest.mark.fault("F3")
def test_a_good_adapter_ends_as_a_served_model_though_the_operator_dies_mid_stage(
    testbed: Testbed, lora: Lora, good: Json
) -> None:
    lora.kubectl.apply(good)
    until("merge has a Job", lambda: lora.jobs("merge"), 180, lambda: lora.status)
    restart_operator(testbed)
    lora.wait("Ready", "True", seconds=1500)
    for stage in WORKING:
        jobs = lora.jobs(stage)
        assert len(jobs) == 1, f"{stage} has exactly one Job"
        assert jobs[0]["status"].get("succeeded") == 1
        assert not jobs[0]["status"].get("failed")


def test_get_and_wait_tell_the_story(lora: Lora) -> None:
    header, line = lora.kubectl("get", "lora", NAME).splitlines()
    assert header.split()[:6] == ["NAME", "PHASE", "GATES", "QUALITY", "SIZE", "READY"]
    assert line.split()[:2] == [NAME, "Serving"]
    lora.kubectl("wait", "--for=condition=Ready", f"lora/{NAME}", "--timeout=10s")
    described = lora.kubectl("describe", "lora", NAME)
    for stage in ("Merged", "Quantized", "Evaluated", "Benchmarked", "GatesPassed", "Published"):
        assert stage in described


def test_the_service_answers_with_the_quantized_model(lora: Lora) -> None:
    assert Asker(lora.url(), NAME).ask()
    status = lora.status
    assert status["serving"]["digest"] == status["artifact"]["digest"]
    pods = lora.kubectl.items("pods", f"lora-operator.dev/release={lora.serving_release()}")
    assert [p["status"]["phase"] for p in pods] == ["Running"]


def test_the_report_and_the_four_conditions_are_there(testbed: Testbed, lora: Lora) -> None:
    benchmark = lora.status["benchmark"]
    assert benchmark["verdict"] == "Passed"
    perplexity = next(r for r in benchmark["results"] if "Perplexity/task" in r["metric"])
    base, merged, quantized = (float(perplexity[c]) for c in ("base", "merged", "quantized"))
    assert merged < 0.9 * base, "the adapter helps"
    assert quantized < 1.05 * merged
    bucket, _, key = benchmark["reportUri"].removeprefix("s3://").partition("/")
    page = testbed.s3().get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    assert "Passed" in page


def test_the_pods_serve_what_our_key_has_signed(testbed: Testbed, lora: Lora) -> None:
    release = lora.serving_release()
    [pod] = lora.kubectl.items("pods", f"lora-operator.dev/release={release}")
    said = lora.kubectl("logs", pod["metadata"]["name"], "--container", "fetch")
    assert f"a trusted key has signed for release {release}" in said
    bucket, _, prefix = STORE.removeprefix("s3://").partition("/")
    key = f"{prefix}/story/releases/{NAME}/{release}/provenance/{testbed.signer.fingerprint}.json"
    envelope = json.loads(testbed.s3().get_object(Bucket=bucket, Key=key)["Body"].read())
    statement = json.loads(opened(envelope, testbed.signer.public))
    parts = statement["predicate"]["runDetails"]["byproducts"]
    images = {p["name"]: p["annotations"].get("tools", {}).get("image") for p in parts}
    assert images["merge"] == testbed.images["jobs"]
    assert images["quantize/default"] == testbed.images["cpu"]


def test_each_transition_has_one_event(lora: Lora) -> None:
    events = lora.kubectl.items("events")
    mine = [e for e in events if e["involvedObject"]["name"] == NAME]
    assert {e["reason"] for e in mine} >= {"GatesPassed", "Serving"}
    said = [(e["reason"], e["message"]) for e in mine]
    assert len(said) == len(set(said))


def test_nothing_that_the_run_left_holds_a_key(testbed: Testbed, lora: Lora) -> None:
    system = testbed.kubectl.within(OPERATOR_NAMESPACE)
    left = [
        *left_in_namespace(lora.kubectl), *logs_of(system), *left_in_bucket(testbed.s3(), STORE),
    ]  # fmt: skip
    read = [where for where, content in left if content]
    places = ["Job/", "Pod/", "Event/", "LoRADeployment/", "log lora-operator-", "story-store/"]
    for place in [*places, *(f"log {NAME}-{stage}-" for stage in WORKING)]:
        assert any(where.startswith(place) for where in read), place
    assert leaks([testbed.access_key, testbed.secret_key, testbed.signer.canary], left) == []


def test_a_failed_gate_never_changes_what_the_service_answers(lora: Lora, good: Json) -> None:
    release = lora.serving_release()
    with Asker(lora.url(), NAME) as asker:
        wrong = json.loads(json.dumps(good))
        wrong["spec"]["adapters"] = [{"uri": f"s3://{E2E_BUCKET}/wrong-adapter"}]
        lora.kubectl.apply(wrong)
        judged = lora.wait("GatesPassed", "False", seconds=900)
        lora.wait("Ready", "False")
    assert "gainRetained" in judged["message"]
    assert lora.condition("Available")["status"] == "True"
    assert lora.serving_release() == release
    assert asker.asked > 3
    assert asker.failures == []
    assert len(asker.answers) == 1


def test_reverting_the_change_repeats_no_stage(lora: Lora, good: Json) -> None:
    before = working_jobs(lora)
    lora.kubectl.apply(good)
    lora.wait("Ready", "True", seconds=240)
    assert working_jobs(lora) == before


@pytest.mark.fault("F36")
def test_no_stream_fails_while_a_candidate_fails_to_start(lora: Lora, good: Json) -> None:
    serving, before = lora.serving_release(), working_jobs(lora)
    with asking(lora) as clients:
        lora.kubectl.apply(that_cannot_start(good))
        told = lora.wait("Ready", "False", reason="StartDeadlineExceeded", seconds=300)
        assert lora.condition("Available")["status"] == "True"
        assert lora.serving_release() == serving
        lora.kubectl.apply(good)
        lora.wait("Ready", "True", seconds=240)
    assert "30s" in told["message"]
    assert [c.failures for c in clients] == [[], []]
    assert lora.serving_release() == serving
    assert working_jobs(lora) == before


def test_deleted_jobs_and_a_restart_repeat_no_stage(testbed: Testbed, lora: Lora) -> None:
    lora.kubectl("delete", "jobs", "--all", "--wait=true")
    restart_operator(testbed)
    system = testbed.kubectl.within(OPERATOR_NAMESPACE)
    system("rollout", "status", "deployment/lora-operator", "--timeout=120s")
    lora.wait("Ready", "True", seconds=120)
    assert lora.jobs(*WORKING) == []


@pytest.mark.fault("F39")
def test_a_wiped_status_is_rebuilt_without_any_stage(lora: Lora) -> None:
    lora.kubectl("patch", "lora", NAME, "--subresource=status", "--type=merge",
                 "-p", json.dumps({"status": None}))  # fmt: skip
    until("status is rebuilt", lambda: lora.condition("Ready")["status"] == "True", 240,
          lambda: lora.status)  # fmt: skip
    assert lora.jobs(*WORKING) == []
    working = [s for s in lora.status["stages"] if s["name"] in WORKING]
    assert len(working) == len(WORKING)
    assert all(s.get("reused") for s in working)


@pytest.mark.fault("F40")
def test_a_deleted_and_reapplied_object_serves_again_without_any_stage(
    lora: Lora, good: Json
) -> None:
    lora.kubectl("delete", "lora", NAME, "--wait=true")
    lora.kubectl.apply(good)
    lora.wait("Ready", "True", seconds=300)
    assert lora.jobs(*WORKING) == []
    assert Asker(lora.url(), NAME).ask()


@pytest.mark.fault("F4")
def test_no_stream_fails_while_the_service_moves_to_vllm_and_the_operator_dies(
    testbed: Testbed, lora: Lora, good: Json
) -> None:
    former = lora.serving_release()
    with asking(lora) as clients:
        lora.kubectl.apply(through_vllm(good))
        until("the successor comes up", lambda: len(releases(lora)) > 1, 900, lambda: lora.status)
        restart_operator(testbed)
        lora.wait("Ready", "True", seconds=1500)
        release = lora.serving_release()
    assert release != former
    assert [c.failures for c in clients] == [[], []]
    assert all(c.asked > 30 for c in clients)
    stages = {s["name"]: s for s in lora.status["stages"]}
    assert [n for n in WORKING if not stages[n].get("reused")] == ["benchmark"]
    [pod] = lora.kubectl.items("pods", f"lora-operator.dev/release={release}")
    assert any("vllm" in word for c in pod["spec"]["containers"] for word in c["command"])


def test_no_stream_fails_in_a_rollback_to_the_former_release_and_no_stage_runs(
    lora: Lora, good: Json
) -> None:
    lora.kubectl("delete", "jobs", "--all", "--wait=true")
    newest = lora.serving_release()
    former = next(r["id"] for r in lora.status["releases"] if r["id"] != newest)
    with asking(lora) as clients:
        pinned = through_vllm(good)
        pinned["spec"]["serving"]["pin"] = former
        lora.kubectl.apply(pinned)
        lora.wait("Ready", "True", seconds=300)
        assert lora.serving_release() == former
        until("what served is drained and gone", lambda: newest not in releases(lora), 300)
    assert [c.failures for c in clients] == [[], []]
    assert lora.jobs(*WORKING) == []


def test_a_settled_object_is_not_written_to(lora: Lora) -> None:
    # That what was drained is no longer verified is told in the look after its removal.
    until("only what is left is verified", lambda: verified(lora) <= releases(lora), 30)
    settled = lora.document["metadata"]["resourceVersion"]
    with pytest.raises(AssertionError, match="not after"):
        until("a write", lambda: lora.document["metadata"]["resourceVersion"] != settled, 15)


# --- the chart, while the object serves ----------------------------------------------------------


def test_helm_test_finds_all_that_the_operator_needs(testbed: Testbed) -> None:
    told = testbed.run_helm("test", RELEASE, "--logs", "--timeout", "2m")
    assert "loradeployments are served" in told
    assert "has each of the" in told


@pytest.fixture
def installed(testbed: Testbed) -> Iterator[Callable[[Path], None]]:
    """Installs a chart as the session did; this one is back afterwards, however it went."""

    def install(chart: Path) -> None:
        testbed.install_operator({PROFILE: testbed.profile()}, chart)

    yield install
    install(CHART)


def look_again(lora: Lora, token: str) -> None:
    """Have the operator that runs now look at the object, and settle."""
    annotation = f"lora-operator.dev/retry-requested-at={token}"
    lora.kubectl("annotate", "lora", lora.name, annotation, "--overwrite")
    until("the operator looks", lambda: lora.status.get("lastHandledRetry") == token, 120,
          lambda: lora.status)  # fmt: skip
    lora.wait("Ready", "True", seconds=120)


def test_no_stream_fails_while_the_chart_is_upgraded_removed_and_installed_again(
    testbed: Testbed, lora: Lora, installed: Callable[[Path], None], tmp_path: Path
) -> None:
    """No release exists yet: the former one is this chart under an earlier version number."""
    testbed.run_helm("package", str(CHART), "--version", "0.0.9", "--app-version", "0.0.9",
                     "--destination", str(tmp_path))  # fmt: skip
    lora.kubectl("delete", "jobs", "--all", "--wait=true")
    before, serving = lora.document, lora.serving_release()
    with asking(lora) as clients:
        installed(tmp_path / f"{RELEASE}-0.0.9.tgz")
        look_again(lora, "former")
        installed(CHART)
        look_again(lora, "upgraded")
        testbed.run_helm("uninstall", RELEASE, "--wait", "--timeout", "2m")
        asked = [client.asked for client in clients]
        until("both clients ask on", lambda: all(
            client.asked > n + 2 for client, n in zip(clients, asked, strict=True)
        ), 60)  # fmt: skip
        assert lora.document["metadata"]["uid"] == before["metadata"]["uid"]
        installed(CHART)
        look_again(lora, "again")
    assert [c.failures for c in clients] == [[], []]
    after = lora.document
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert lora.serving_release() == serving
    assert lora.jobs(*WORKING) == []
