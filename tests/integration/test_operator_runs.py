"""The operator on a real API server, with the chart's rights: from an adapter to a served model.

Pods are played by a stand-in kubelet and stage programs by canned answers; Jobs, Deployments,
admission, Pod Security, RBAC, server-side apply and garbage collection are real.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from builders import spec_document
from canned_stages import BAD_ADAPTER
from chart import chart_rules
from kubectl import Kubectl
from localcluster.controlplane import ControlPlane
from lora_api import API_VERSION, KIND
from lora_api.jobcontract import Reason
from lora_api.naming import LABEL_NAME, LABEL_STAGE
from operator_process import grant
from operator_stage import NAME, OperatorStage
from signingkeys import SIGNING_SECRET, KeyPair, provenance

pytestmark = pytest.mark.integration
WORK = ["merge", "quantize", "evaluate", "benchmark"]


@pytest.fixture
def stage(control_plane: ControlPlane, kubectl: Kubectl, tmp_path: Path) -> Iterator[OperatorStage]:
    with OperatorStage(control_plane, kubectl, tmp_path) as running:
        yield running


def test_a_good_adapter_is_served_and_then_nothing_is_written_any_more(
    stage: OperatorStage,
) -> None:
    stage.apply()
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == WORK
    (deployment,) = stage.kubectl.items("deployments")
    assert deployment["metadata"]["name"] == f"{NAME}-{stage.serves()}"
    conditions = {c["type"]: c["status"] for c in stage.object()["status"]["conditions"]}
    assert conditions.pop("Reconciling") == conditions.pop("Stalled") == "False"
    assert set(conditions.values()) == {"True"}, conditions
    assert ("Normal", "Serving") in stage.events()

    def versions() -> list[str]:
        kinds = ("lora", "jobs", "deployments", "services")
        return [i["metadata"]["resourceVersion"] for k in kinds for i in stage.kubectl.items(k)]

    settled, said = versions(), stage.operator.log
    stage.stays("nothing is written over two resyncs", lambda: versions() == settled, seconds=5)
    assert stage.operator.log == said, "not even what the server takes for no change"
    assert "Traceback" not in stage.operator.log

    scraped = stage.operator.scrape()
    served = 'object_status{name="demo",namespace="%s",phase="Serving",reason=""} 1.0'
    assert served % stage.kubectl.namespace in scraped
    assert 'stage_duration_seconds_count{outcome="succeeded",stage="quantize"} 1.0' in scraped
    assert 'requests_total{code="200",resource="loradeployments/status",verb="patch"}' in scraped
    assert 'watch_age_seconds{resource="loradeployments"}' in scraped


def test_the_merged_model_is_served_where_nothing_is_to_be_quantized(stage: OperatorStage) -> None:
    stage.apply(quantization={"method": "None"})
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == ["merge", "evaluate", "benchmark"]
    status = stage.object()["status"]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert "Quantized" not in conditions, "what is never done is not waited for"
    assert conditions["GatesPassed"] == conditions["Available"] == "True"
    assert status["releases"][0]["digest"] == stage.stages.store_of("merge")


def test_a_key_that_cannot_sign_is_told_before_any_work_and_goes_on_once_it_can(
    stage: OperatorStage,
) -> None:
    stage.stages.waiting["resolve"] = Reason.SIGNING_KEY_UNUSABLE
    stage.apply(provenance=provenance(KeyPair()))
    stage.wait_for("Ready", "Unknown", "SigningKeyUnusable")
    assert stage.stages.ran == []
    assert stage.stages.asked == {"resolve"}
    del stage.stages.waiting["resolve"]
    stage.wait_for("Ready", "True")
    mounting = {
        pod["metadata"]["labels"]["lora-operator.dev/stage"]
        for pod in stage.kubectl.items("pods", "lora-operator.dev/stage")
        if SIGNING_SECRET in json.dumps(pod["spec"]["volumes"])
    }
    assert mounting <= {"resolve", "publish"}
    assert "publish" in mounting


def test_the_object_itself_stays_the_users(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.apply()
    before = stage.object()
    stage.wait_for("Ready", "True")
    after = stage.object()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert "finalizers" not in after["metadata"]
    assert after["metadata"]["generation"] == 1
    assert "configured" not in stage.kubectl("apply", "-f", "-", stdin=_as_applied(after))


def test_a_failed_gate_leaves_the_last_good_release_serving(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.apply()
    stage.wait_for("Ready", "True")
    good, deployments = stage.serves(), stage.kubectl.items("deployments")
    stage.apply(adapters=[{"uri": f"s3://models/{BAD_ADAPTER}"}])
    stage.wait_for("Ready", "False", "GatesFailed")
    assert stage.serves() == good
    assert [d["metadata"]["uid"] for d in stage.kubectl.items("deployments")] == [
        d["metadata"]["uid"] for d in deployments
    ]
    assert stage.condition("Available")["status"] == "True"
    assert stage.stages.ran == []
    assert ("Warning", "GatesFailed") in stage.events()


def test_a_new_adapter_takes_over_only_when_its_pods_are_ready(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.apply()
    stage.wait_for("Ready", "True")
    first = stage.serves()
    stage.serving_pods_start = False  # those that are Ready stay so
    new = [{"uri": "s3://models/better"}]
    stage.apply(adapters=new)
    stage.wait_for("Ready", "Unknown", "WaitingForPods")
    stage.stays("the first serves", lambda: stage.serves() == first)
    stage.serving_pods_start = True
    stage.until("the Service moves", lambda: stage.serves() not in ("", first))
    stage.wait_for("Ready", "True")
    stage.until("one Deployment is left", lambda: len(stage.kubectl.items("deployments")) == 1)


@pytest.mark.fault("F36")
def test_a_switched_release_bakes_and_the_former_one_takes_over_again_when_pods_are_lost(
    stage: OperatorStage,
) -> None:
    stage.stages.prepared = True
    stage.apply(**{"serving.strategy": {}})
    stage.wait_for("Ready", "True")
    first = stage.serves()
    stage.apply(**{"serving.strategy": {}, "adapters": [{"uri": "s3://models/better"}]})
    stage.until("the Service moves", lambda: stage.serves() not in ("", first))
    second = stage.serves()
    stage.wait_for("Reconciling", "True", "Baking")
    stage.wait_for("Ready", "True", "Serving")
    stage.lose_pods(second)
    stage.until("the Service goes back", lambda: stage.serves() == first)
    stage.wait_for("Ready", "False", "LostReadiness")
    lost = f"{NAME}-{second}"
    stage.until(
        "its pods are gone",
        lambda: stage.kubectl.get("deployment", lost)["spec"]["replicas"] == 0,
    )
    assert stage.condition("Available")["status"] == "True"
    stage.stays("the first serves", lambda: stage.serves() == first)


def test_an_earlier_release_is_pinned_and_nothing_is_measured(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.apply()
    stage.wait_for("Ready", "True")
    first, better = stage.serves(), [{"uri": "s3://models/better"}]
    stage.apply(adapters=better)
    stage.until("the Service moves", lambda: stage.serves() not in ("", first))
    stage.until("one Deployment is left", lambda: len(stage.kubectl.items("deployments")) == 1)
    stage.apply(**{"adapters": better, "serving.pin": first})
    stage.until("the Service moves back", lambda: stage.serves() == first)
    stage.wait_for("Ready", "True")
    assert "recall" in stage.stages.asked
    assert stage.stages.ran == []


def test_production_serves_the_digest_that_staging_judged_and_no_stage_runs_for_it(
    stage: OperatorStage,
) -> None:
    stage.apply()
    stage.wait_for("Ready", "True")
    judged = stage.object()["status"]["serving"]
    production = "production"
    stage.kubectl.apply(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": production},
         "spec": spec_document(**{"gates.taskQuality.maxIncrease": "2%", "serving.replicas": 2})}
    )  # fmt: skip
    stage.until("production serves", lambda: _is_ready(stage, production))
    status = stage.kubectl.get("lora", production)["status"]
    assert status["serving"]["digest"] == judged["digest"]
    assert status["benchmark"]["verdict"] == "Passed", "judged by its own gates"
    assert stage.stages.ran == WORK, "staging's, once"
    working = {s["name"]: s["reused"] for s in status["stages"] if s["name"] in WORK}
    assert working == dict.fromkeys(WORK, True)
    assert not stage.kubectl.items("jobs", f"{LABEL_NAME}={production},{LABEL_STAGE} in (quantize)")

    stage.apply(adapters=[{"uri": f"s3://models/{BAD_ADAPTER}"}])
    stage.wait_for("Ready", "False", "GatesFailed")
    assert _is_ready(stage, production), "what staging tries next is nothing to production"


@pytest.mark.fault("F28", "F37")
def test_an_autoscaler_scales_the_object_itself(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.apply()
    stage.wait_for("Ready", "True")
    jobs = stage.jobs()
    scale = f"/apis/lora-operator.dev/v1alpha1/namespaces/{stage.kubectl.namespace}/loradeployments"
    stage.kubectl("scale", "lora", NAME, "--replicas=3")
    stage.until("three pods", lambda: len(_ready_pods(stage)) == 3)
    seen = json.loads(stage.kubectl("get", "--raw", f"{scale}/{NAME}/scale"))
    assert seen["status"] == {"replicas": 3, "selector": (
        f"lora-operator.dev/name={NAME},lora-operator.dev/release={stage.serves()}")}  # fmt: skip
    stage.wait_for("Reconciling", "False")
    assert stage.condition("Ready")["status"] == "True"
    assert stage.jobs() == jobs
    (budget,) = stage.kubectl.items("poddisruptionbudgets")
    assert budget["metadata"]["generation"] == 1, "as the server has it, it is as intended"
    assert budget["spec"]["selector"]["matchLabels"]["lora-operator.dev/release"] == stage.serves()


def test_a_suspended_stage_ends_at_once_and_goes_on_later(stage: OperatorStage) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: _stage_state(stage, "quantize") == "Running")
    stage.apply(suspend=True)
    stage.until("its pod is gone", lambda: not stage.kubectl.items(
        "pods", "lora-operator.dev/stage=quantize"))  # fmt: skip
    stage.wait_for("Reconciling", "False", "Suspended")
    stage.stays("no Job runs", lambda: not stage.has_unfinished_jobs())
    stage.stages.held.clear()
    stage.apply(suspend=False)
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == WORK


@pytest.mark.fault("F3")
def test_a_killed_operator_goes_on_where_it_was_without_a_second_job(
    stage: OperatorStage,
) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: "quantize" in stage.stages.asked)
    jobs = stage.jobs()
    stage.operator.kill()
    stage.stages.held.clear()
    quantize = stage.job_of("quantize")
    stage.until("quantize ends unseen", lambda: _is_complete(stage, quantize))
    stage.operator.start()
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == WORK
    assert stage.jobs().items() >= {quantize: jobs[quantize]}.items()
    assert len(stage.kubectl.items("jobs", "lora-operator.dev/stage=quantize")) == 1


@pytest.mark.fault("F39")
def test_a_wiped_status_is_rebuilt_without_any_work(stage: OperatorStage) -> None:
    stage.apply()
    stage.wait_for("Ready", "True")
    serving, uids = stage.serves(), _uids(stage, "deployments")
    wiped = stage.object() | {"status": {}}
    stage.kubectl("replace", "--subresource=status", "-f", "-", stdin=_yaml(wiped))
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == WORK
    assert (stage.serves(), _uids(stage, "deployments")) == (serving, uids)


@pytest.mark.fault("F18", "F19")
def test_a_job_deleted_after_its_success_is_not_run_again(stage: OperatorStage) -> None:
    stage.apply()
    stage.wait_for("Ready", "True")
    stage.kubectl("delete", "jobs", "--all", "--wait")
    stage.stays("Ready", lambda: stage.condition("Ready")["status"] == "True", seconds=5)
    assert stage.stages.ran == WORK


@pytest.mark.fault("F18")
def test_a_job_deleted_while_it_runs_is_run_again_once(stage: OperatorStage) -> None:
    stage.stages.held.add("quantize")
    stage.apply()
    stage.until("quantize runs", lambda: _stage_state(stage, "quantize") == "Running")
    before = stage.jobs()[stage.job_of("quantize")]
    stage.kubectl("delete", "job", stage.job_of("quantize"), "--wait")

    def is_run_again() -> bool:
        jobs = stage.jobs()
        return before not in jobs.values() and any("quantize" in name for name in jobs)

    stage.until("it is run again", is_run_again)
    stage.stages.held.clear()
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == WORK


@pytest.mark.fault("F40", "F42")
def test_a_recreated_object_reuses_all_that_is_stored(stage: OperatorStage) -> None:
    stage.apply()
    stage.wait_for("Ready", "True")
    stage.kubectl("delete", "lora", NAME, "--wait")
    stage.until("its children are gone", lambda: not stage.jobs() and not stage.serves())
    stage.apply()
    stage.wait_for("Ready", "True")
    assert stage.stages.ran == WORK


def test_a_missing_secret_waits_and_goes_on_by_itself(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.stages.waiting["resolve"] = Reason.CREDENTIALS_MISSING
    stage.apply()
    stage.wait_for("Ready", "Unknown", "CredentialsMissing")
    assert stage.condition("Resolved")["message"] == "not yet; create it"
    assert "merge" not in stage.stages.asked
    stage.stages.waiting.clear()
    stage.wait_for("Ready", "True")


@pytest.mark.fault("F37")
def test_what_is_changed_or_deleted_by_hand_is_restored(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.apply()
    stage.wait_for("Ready", "True")
    deployment = f"{NAME}-{stage.serves()}"
    stage.kubectl("set", "image", f"deployment/{deployment}", "engine=somebody/elses:image")
    stage.until("the image is back", lambda: _image(stage, deployment) != "somebody/elses:image")
    before = stage.serves()
    stage.kubectl("delete", "service", NAME, "--wait")
    stage.until("the Service is back", lambda: stage.serves() == before)
    stage.wait_for("Ready", "True")


@pytest.mark.fault("F38")
def test_somebody_elses_service_of_our_name_is_left_alone(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.kubectl("create", "service", "clusterip", NAME, "--tcp=80:80")
    version = stage.kubectl.get("service", NAME)["metadata"]["resourceVersion"]
    stage.apply()
    stage.wait_for("Ready", "False", "NameConflict")
    assert stage.kubectl.get("service", NAME)["metadata"]["resourceVersion"] == version


@pytest.mark.fault("F45")
def test_a_missing_right_is_named_and_work_goes_on_once_it_is_granted(
    stage: OperatorStage,
) -> None:
    stage.stages.prepared = True
    lesser = [
        rule | {"verbs": [v for v in rule["verbs"] if v != "create"]}
        if rule["resources"] == ["jobs"]
        else rule
        for rule in chart_rules()
    ]
    grant(stage.kubectl, lesser)
    stage.apply()
    stage.wait_for("Ready", "Unknown", "ApiDenied")
    message = stage.condition("Ready")["message"]
    assert '"create" of jobs' in message
    assert stage.object()["status"]["phase"] == "Waiting"
    version = stage.object()["metadata"]["resourceVersion"]
    stage.stays("no write while it is denied",
                lambda: stage.object()["metadata"]["resourceVersion"] == version)  # fmt: skip
    assert stage.events().count(("Warning", "ApiDenied")) == 1
    grant(stage.kubectl, chart_rules())
    stage.wait_for("Ready", "True")


@pytest.mark.fault("F45")
def test_a_quota_is_named_too(stage: OperatorStage) -> None:
    stage.stages.prepared = True
    stage.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    stage.apply()
    stage.wait_for("Ready", "Unknown", "ApiDenied")
    assert "exceeded quota" in stage.condition("Ready")["message"]
    stage.kubectl("delete", "quota", "none")
    stage.wait_for("Ready", "True")


@pytest.mark.fault("F42")
def test_a_deleted_object_leaves_nothing_behind(stage: OperatorStage) -> None:
    stage.stages.held.add("merge")
    stage.apply()
    stage.until("merge runs", lambda: "merge" in stage.stages.asked)
    stage.kubectl("delete", "lora", NAME, "--wait")
    for kind in ("jobs", "pods", "deployments", "services"):
        stage.until(f"no {kind}", lambda kind=kind: not stage.kubectl.items(kind))  # type: ignore[misc]


def _as_applied(document: dict[str, object]) -> str:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])


def _yaml(document: dict[str, object]) -> str:
    return yaml.safe_dump(document)


def _is_complete(stage: OperatorStage, job: str) -> bool:
    conditions = stage.kubectl.get("job", job)["status"].get("conditions", [])
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


def _is_ready(stage: OperatorStage, name: str) -> bool:
    conditions = stage.kubectl.get("lora", name).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _stage_state(stage: OperatorStage, name: str) -> str:
    stages = stage.object().get("status", {}).get("stages", [])
    return next((str(s["state"]) for s in stages if s["name"] == name), "")


def _ready_pods(stage: OperatorStage) -> list[str]:
    pods = stage.kubectl.items("pods", f"lora-operator.dev/release={stage.serves()}")
    return [
        p["metadata"]["name"]
        for p in pods
        for c in p["status"].get("conditions", [])
        if c["type"] == "Ready" and c["status"] == "True"
    ]


def _uids(stage: OperatorStage, kind: str) -> list[str]:
    return [item["metadata"]["uid"] for item in stage.kubectl.items(kind)]


def _image(stage: OperatorStage, deployment: str) -> str:
    spec = stage.kubectl.get("deployment", deployment)["spec"]["template"]["spec"]
    return str(spec["containers"][0]["image"])
