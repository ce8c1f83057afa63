"""What the operator creates meets `restricted`, holds no secret and asks for what it needs only."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import spec_document
from fake_cluster import FakeCluster
from lora_api.jobcontract import (
    ACCELERATED_STAGES,
    REQUEST_ENV,
    WORKING_STAGES,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_api.line import release_of
from lora_api.naming import (
    ANNOTATION_RECIPE,
    ANNOTATION_SPEC_HASH,
    ANNOTATION_SWITCH,
    LABEL_NAME,
    deployment_name,
    job_name,
)
from lora_api.runtimes import RECIPES, Runtime
from lora_api.sources import requested_sources
from lora_api.spec import Spec, parse_spec
from lora_operator.actions import ApplyDeployment, ApplyService, CreateJob
from lora_operator.cluster import SERVICES
from lora_operator.manifests.jobs import stage_job
from lora_operator.manifests.serving import release_deployment, release_service
from lora_operator.observe import observe_children
from lora_operator.observed import ObservedObject, ObservedService, Switch
from lora_operator.settings import Settings
from signingkeys import KeyPair, provenance

Json = dict[str, Any]
SETTINGS = Settings(
    jobs_image="jobs", quantize_image="quantize", serving_images={r: r.name for r in Runtime}
)
DIGEST = "sha256:" + "a" * 64
GPU = {"resource": "nvidia.com/gpu", "product": "NVIDIA-L40S"}


def parent(name: str = "demo") -> ObservedObject:
    return ObservedObject("team", name, "uid-1", 1, "7", {}, {}, {})


def spec(**changes: Any) -> Spec:
    return parse_spec(spec_document(**changes))


def job(stage: Stage, asked: Spec, name: str = "demo") -> Json:
    call = StageCall(stage=stage, parents={"merged": DIGEST}, candidate="default")
    request = StageRequest(
        call=call,
        sources=requested_sources(asked),
        run=RunReference(namespace="team", name=name, uid="uid-1"),
        store=StoreReference(uri="s3://models/store", scope="team", connection="models"),
        connections=asked.connections or [],
    )
    action = CreateJob(job_name(name, "uid-1", stage, call.input_hash), request)
    return stage_job(parent(name), asked, SETTINGS, action)


def deployment(asked: Spec, name: str = "demo", **changes: Any) -> Json:
    release = release_of(asked, name, "serve@sha256:1", DIGEST)
    fields: Json = {
        "name": deployment_name(name, release.id),
        "release": release.id,
        "digest": release.artifact,
        "candidate": "default",
        "recipe": release.recipe,
        "replicas": 2,
    }
    return release_deployment(parent(name), asked, SETTINGS, ApplyDeployment(**fields | changes))


def service(asked: Spec) -> Json:
    return release_service(parent(), asked, ApplyService("demo", "12345678"))


def pod_of(document: Json) -> Json:
    pod: Json = document["spec"]["template"]["spec"]
    return pod


def containers(document: Json) -> Iterator[Json]:
    pod = pod_of(document)
    yield from [*pod.get("initContainers", []), *pod["containers"]]


def asked_resources(document: Json) -> set[str]:
    return {
        name
        for container in containers(document)
        for part in container.get("resources", {}).values()
        for name in part
    }


WORKLOADS = [*Stage, "deployment"]


def workload(kind: str, asked: Spec) -> Json:
    return deployment(asked) if kind == "deployment" else job(Stage(kind), asked)


@pytest.mark.parametrize("runtime", list(Runtime))
@pytest.mark.parametrize("kind", WORKLOADS)
def test_every_pod_meets_the_restricted_profile_and_has_no_kubernetes_credentials(
    kind: str, runtime: Runtime
) -> None:
    document = workload(kind, spec(**{"serving.runtime": runtime.value}))
    pod = pod_of(document)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(document):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
    allowed = {"name", "emptyDir", "secret"}
    assert all(set(volume) <= allowed for volume in pod["volumes"])


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_mounted_volume_is_there_and_every_volume_is_mounted(kind: str) -> None:
    document = workload(kind, spec(**{"serving.runtime": "VLLM"}))
    mounted = {m["name"] for c in containers(document) for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod_of(document)["volumes"]}


@pytest.mark.parametrize("stage", list(Stage))
def test_only_accelerated_stages_ask_for_an_accelerator_even_if_the_defaults_do(
    stage: Stage,
) -> None:
    defaults = {"resources": {"limits": {"nvidia.com/gpu": "2", "memory": "64Gi"}}}
    asked = spec(**{"serving.accelerator": GPU, "jobs.defaults": {"scheduling": defaults}})
    document = job(stage, asked)
    assert ("nvidia.com/gpu" in asked_resources(document)) == (stage in ACCELERATED_STAGES)
    assert pod_of(document)["containers"][0]["resources"]["limits"]["memory"] == "64Gi"


@pytest.mark.parametrize("kind", WORKLOADS)
def test_on_cpus_nothing_asks_for_an_accelerator(kind: str) -> None:
    plain = {"cpu", "memory", "ephemeral-storage"}
    assert asked_resources(workload(kind, spec())) <= plain


@pytest.mark.parametrize("stage", sorted(ACCELERATED_STAGES))
def test_an_accelerated_stage_asks_for_one_device_by_default(stage: Stage) -> None:
    document = job(stage, spec(**{"serving.accelerator": GPU}))
    assert pod_of(document)["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


def test_what_is_measured_and_what_serves_run_on_the_product_that_was_named() -> None:
    asked = spec(**{"serving.accelerator": GPU})
    on_product = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    for kind in WORKLOADS:
        selector = pod_of(workload(kind, asked)).get("nodeSelector", {})
        assert (selector == on_product) == (kind in (Stage.BENCHMARK, "deployment")), kind


@pytest.mark.fault("F48")
@settings(deadline=None)
@given(name=st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True))
def test_names_and_label_values_fit_whatever_the_object_is_called(name: str) -> None:
    documents = [*(job(stage, spec(), name) for stage in Stage), deployment(spec(), name)]
    for document in documents:
        assert len(document["metadata"]["name"]) <= 63
        for marked in (document["metadata"], document["spec"]["template"]["metadata"]):
            assert marked["labels"][LABEL_NAME] == name
            assert all(len(value) <= 63 for value in marked["labels"].values())


@pytest.mark.parametrize("kind", WORKLOADS)
def test_credentials_are_optional_read_only_files_and_nothing_else(kind: str) -> None:
    document = workload(kind, spec())
    (volume,) = [v for v in pod_of(document)["volumes"] if "secret" in v]
    assert volume["secret"] | {"defaultMode": 0} == {
        "secretName": "s3", "optional": True, "defaultMode": 0,
    }  # fmt: skip
    mounts = [m for c in containers(document) for m in c["volumeMounts"]
              if m["name"] == volume["name"]]  # fmt: skip
    assert [m["readOnly"] for m in mounts] == [True]
    assert mounts[0]["mountPath"] == "/var/run/lora-operator/connections/models"
    text = json.dumps(
        [[c.get("env"), c.get("command"), c.get("args")] for c in containers(document)]
    )
    assert "secretKeyRef" not in text
    assert "envFrom" not in json.dumps(document)


@pytest.mark.parametrize("runtime", list(Runtime))
def test_a_shared_volume_has_a_folder_for_each_artifact_that_the_engine_only_reads(
    runtime: Runtime,
) -> None:
    volume = {"persistentVolumeClaim": {"claimName": "models"}}
    document = deployment(spec(**{"serving.runtime": runtime, "serving.modelVolume": volume}))
    [model] = [v for v in pod_of(document)["volumes"] if v["name"] == "model"]
    assert model == {"name": "model", **volume}
    fetch, engine = containers(document)
    folder = f"/models/{DIGEST.replace(':', '-')}/demo"
    assert fetch["command"][-2:] == ["--output", folder]
    told = engine.get("workingDir", "") + " ".join(engine["command"])
    assert folder.removesuffix("demo") in told
    reads = {m["name"]: m.get("readOnly", False) for m in engine["volumeMounts"]}
    assert reads["model"]
    alone = deployment(spec(**{"serving.runtime": runtime}))
    assert next(containers(alone))["command"][-1] == "/models/demo"


def test_working_stages_share_the_cache_and_its_limit_and_no_other_pod_sees_it() -> None:
    cache = {"persistentVolumeClaim": {"claimName": "models"}, "sizeLimit": "1.5Gi"}
    asked = spec(**{"jobs.defaults.cache": cache})
    for stage in Stage:
        document = job(stage, asked)
        [container] = containers(document)
        environment = {v["name"]: v["value"] for v in container["env"]}
        if stage in WORKING_STAGES:
            assert environment["LORA_CACHE_LIMIT_BYTES"] == str(3 * 2**29)
            mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
            assert not mounts[environment["LORA_CACHE_DIR"]].get("readOnly")
        else:
            assert "persistentVolumeClaim" not in json.dumps(document)
            assert "LORA_CACHE_DIR" not in environment
    assert "persistentVolumeClaim" not in json.dumps(deployment(asked))


def test_a_claim_that_sources_name_is_mounted_once_to_be_read() -> None:
    asked = spec(
        baseModel={"uri": "pvc://models/base"},
        adapters=[{"uri": "pvc://models/adapters/sql"}, {"uri": "pvc://team-b/adapter"}],
    )
    document = job(Stage.MERGE, asked)
    mounted = {
        m["mountPath"]: m["readOnly"]
        for c in containers(document)
        for m in c["volumeMounts"]
        if "/claims/" in m["mountPath"]
    }
    assert mounted == {
        "/var/run/lora-operator/claims/models": True,
        "/var/run/lora-operator/claims/team-b": True,
    }
    named = [v["persistentVolumeClaim"] for v in pod_of(document)["volumes"]
             if "persistentVolumeClaim" in v]  # fmt: skip
    assert named == [{"claimName": "models"}, {"claimName": "team-b"}]
    assert "persistentVolumeClaim" not in json.dumps(job(Stage.MERGE, spec()))


@pytest.mark.parametrize("kind", WORKLOADS)
def test_a_ca_bundle_is_an_optional_file_of_the_program_that_connects(kind: str) -> None:
    s3 = {"secretRef": {"name": "s3"}, "caBundle": {"configMapName": "internal-ca"}}
    document = workload(kind, spec(connections=[{"name": "models", "s3": s3}]))
    [volume] = [v for v in pod_of(document)["volumes"] if "configMap" in v]
    assert volume["configMap"] == {
        "name": "internal-ca", "optional": True, "items": [{"key": "ca.crt", "path": "ca.crt"}],
    }  # fmt: skip
    mounts = [m for c in containers(document) for m in c["volumeMounts"]
              if m["name"] == volume["name"]]  # fmt: skip
    assert [(m["mountPath"], m["readOnly"]) for m in mounts] == [
        ("/var/run/lora-operator/authorities/models", True)
    ]


def test_the_engine_itself_sees_no_credentials_and_fetch_reads_with_the_lesser_ones() -> None:
    asked = spec()
    connections = [
        {"name": "models", "s3": {"secretRef": {"name": "full"}, "readSecretRef": {"name": "ro"}}}
    ]
    document = deployment(spec(connections=connections))
    fetch, engine = containers(document)
    assert not [m for m in engine["volumeMounts"] if "connection" in m["name"]]
    assert [v["secret"]["secretName"] for v in pod_of(document)["volumes"] if "secret" in v] == [
        "ro"
    ]
    request = StageRequest.model_validate_json(_environment(fetch)[REQUEST_ENV])
    assert request.call.parents == {"artifact": DIGEST}
    assert request.store.uri == asked.artifact.uri
    written = job(Stage.MERGE, spec(connections=connections))
    assert [v["secret"]["secretName"] for v in pod_of(written)["volumes"] if "secret" in v] == [
        "full"
    ]


PAIR = KeyPair()


@pytest.mark.parametrize("kind", WORKLOADS)
def test_the_signing_key_is_a_file_of_the_stages_that_need_it_and_of_no_other_pod(
    kind: str,
) -> None:
    document = workload(kind, spec(provenance=provenance(PAIR)))
    volumes = [v for v in pod_of(document)["volumes"] if "release-key" in json.dumps(v)]
    text = json.dumps([[c.get("env"), c["command"]] for c in containers(document)])
    assert "secretKeyRef" not in text
    if kind not in ("resolve", "publish"):
        assert not volumes
        return
    (volume,) = volumes
    assert volume["secret"]["items"] == [{"key": "key.pem", "path": "key.pem"}]
    assert volume["secret"]["optional"] is True
    assert volume["secret"]["defaultMode"] == 0o440
    (container,) = containers(document)
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == volume["name"]]
    assert mount["readOnly"] is True
    assert container["image"] == SETTINGS.jobs_image, "no image that an object can choose"


def test_a_serving_pod_is_told_its_release_and_whom_to_trust_where_that_is_asked() -> None:
    def told(asked: Spec) -> Json:
        fetch, _ = containers(deployment(asked))
        request: Json = json.loads(_environment(fetch)[REQUEST_ENV])
        return request

    plain, signed = told(spec()), told(spec(provenance=provenance(PAIR)))
    release = release_of(spec(), "demo", "serve@sha256:1", DIGEST)
    assert signed == plain | {"publicKeys": [PAIR.public_pem], "release": release.to_json()}
    assert not {"publicKeys", "release"} & set(plain), "an upgrade rolls no pod"


def test_a_release_that_is_read_back_from_its_deployment_rolls_no_pod() -> None:
    changes = {"serving.env": [{"name": n, "value": "1"} for n in ("B", "A")]}
    asked = spec(provenance=provenance(PAIR), **changes)
    made = deployment(asked)
    recipe = json.loads(made["metadata"]["annotations"][ANNOTATION_RECIPE])
    recipe["env"] = dict(reversed(recipe["env"].items()))
    again = deployment(asked, recipe=dict(reversed(recipe.items())))
    assert again["spec"] == made["spec"]


def test_a_stage_program_knows_its_image_for_the_record() -> None:
    (container,) = containers(job(Stage.QUANTIZE, spec()))
    assert _environment(container)["LORA_STAGE_IMAGE"] == container["image"]


def test_a_stage_program_is_told_its_request_and_where_its_result_goes() -> None:
    (container,) = containers(job(Stage.QUANTIZE, spec()))
    environment = _environment(container)
    request = StageRequest.model_validate_json(environment[REQUEST_ENV])
    assert request.call.stage is Stage.QUANTIZE
    assert container["command"] == ["lora-jobs", "stage"]
    assert container["terminationMessagePath"] == environment["LORA_STAGE_RESULT"]
    folders = {m["mountPath"] for m in container["volumeMounts"]}
    assert {environment["LORA_WORK_DIR"], environment["HOME"]} <= folders


def test_each_stage_runs_in_the_image_that_has_its_programs() -> None:
    images = {s: next(containers(job(s, spec())))["image"] for s in Stage}
    assert {s for s, image in images.items() if image == "quantize"} == {
        Stage.QUANTIZE, Stage.EVALUATE,
    }  # fmt: skip
    assert images[Stage.BENCHMARK] == "TRANSFORMERS"
    assert {images[s] for s in Stage} == {"jobs", "quantize", "TRANSFORMERS"}


@pytest.mark.fault("F23")
def test_a_refusal_ends_the_job_and_a_disruption_does_not_count() -> None:
    document = job(Stage.MERGE, spec(**{"jobs.defaults": {"retries": 5}}))
    rules = document["spec"]["podFailurePolicy"]["rules"]
    assert [r["action"] for r in rules] == ["Ignore", "FailJob"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules[1]["onExitCodes"]["values"] == [2, 3, 64]
    assert document["spec"]["backoffLimit"] == 5
    assert "activeDeadlineSeconds" not in document["spec"]


def test_labels_of_users_are_taken_over_and_never_win_over_ours() -> None:
    asked = spec(**{"jobs.defaults": {"labels": {"team": "sql", LABEL_NAME: "other"}}})
    labels = job(Stage.MERGE, asked)["metadata"]["labels"]
    assert labels["team"] == "sql"
    assert labels[LABEL_NAME] == "demo"


@pytest.mark.parametrize("runtime", list(Runtime))
def test_shared_memory_is_in_memory_where_the_engine_needs_it(runtime: Runtime) -> None:
    asked = spec(**{"serving.runtime": runtime.value})
    size = RECIPES[runtime].shared_memory_bytes
    for document in (deployment(asked), job(Stage.BENCHMARK, asked)):
        volumes = [v["emptyDir"] for v in pod_of(document)["volumes"] if v["name"] == "shm"]
        assert volumes == ([{"medium": "Memory", "sizeLimit": str(size)}] if size else [])
    assert "shm" not in [v["name"] for v in pod_of(job(Stage.MERGE, asked))["volumes"]]


def test_a_release_never_has_less_than_its_replicas_and_drains_within_its_grace() -> None:
    document = deployment(spec(**{"serving.terminationGracePeriodSeconds": 40}))
    assert document["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    engine = list(containers(document))[-1]
    assert 0 < engine["lifecycle"]["preStop"]["sleep"]["seconds"] < 40
    probe = engine["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 15 * 60  # startDeadline
    assert probe["exec"]["command"][-2:] == ["demo", "http://127.0.0.1:8000/v1/completions"]
    assert "exec" not in engine["readinessProbe"], "a busy pod stays in"


def test_replicas_of_a_release_lie_on_many_nodes_where_there_are_some() -> None:
    document = deployment(spec())
    (spread,) = pod_of(document)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"] == document["spec"]["selector"], "its own replicas alone"


def test_the_service_selects_exactly_the_pods_of_one_release() -> None:
    document = service(spec(**{"serving.service": {"type": "NodePort", "port": 80}}))
    assert document["spec"]["type"] == "NodePort"
    selector = document["spec"]["selector"]
    labels = deployment(spec(), release="12345678")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    other = deployment(spec())["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= other.items()
    (port,) = document["spec"]["ports"]
    assert port["port"] == 80


async def test_when_and_from_what_it_was_switched_is_read_back_from_the_service() -> None:
    switch = Switch(at=1_800_000_000.0, previous="11111111", pods=2, refused="22222222/uid")
    document = release_service(parent(), spec(), ApplyService("demo", "12345678", switch))
    cluster = FakeCluster()
    cluster.add(SERVICES, document)
    observed = await observe_children(cluster, parent())
    assert observed.service == ObservedService("demo", "12345678", ours=True, switch=switch)
    document["metadata"]["annotations"][ANNOTATION_SWITCH] = "by hand"
    cluster.add(SERVICES, document)
    observed = await observe_children(cluster, parent())
    assert observed.service == ObservedService("demo", "12345678", ours=True, switch=None)


def test_equal_intent_has_an_equal_hash_and_any_change_another() -> None:
    def spec_hash(**changes: Any) -> str:
        annotations = deployment(spec(), **changes)["metadata"]["annotations"]
        return str(annotations[ANNOTATION_SPEC_HASH])

    assert spec_hash() == spec_hash()
    assert len({spec_hash(), spec_hash(replicas=3), spec_hash(digest="sha256:" + "b" * 64)}) == 3


@pytest.mark.parametrize("kind", WORKLOADS)
def test_children_go_with_their_object(kind: str) -> None:
    (owner,) = workload(kind, spec())["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "uid-1", True, False,
    )  # fmt: skip


def _environment(container: Json) -> dict[str, str]:
    return {e["name"]: e["value"] for e in container["env"]}
