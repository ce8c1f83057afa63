"""The Deployment of a release and the Service that selects one release.

    init container `fetch`: artifact -> /models/<model name>, every sha256 verified
    container `engine`:     the command that was benchmarked, on that folder

A Deployment belongs to one release for ever: artifact and recipe are in its annotations, and what
may change (replicas, scheduling, credentials) is at most an ordinary rolling update.
"""

import json
from dataclasses import asdict

from lora_api.digests import digest_of
from lora_api.jobcontract import (
    CREDENTIALS_DIR_ENV,
    DEFAULT_CREDENTIALS_DIR,
    DEFAULT_RESULT_PATH,
    REQUEST_ENV,
    RESULT_PATH_ENV,
    Release,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_api.layout import scope
from lora_api.naming import (
    ANNOTATION_BENCHMARK,
    ANNOTATION_CANDIDATE,
    ANNOTATION_DIGEST,
    ANNOTATION_RECIPE,
    ANNOTATION_SPEC_HASH,
    ANNOTATION_SWITCH,
    labels,
    release_selector,
)
from lora_api.parameters import ServingRecipe
from lora_api.runtimes import RECIPES, SERVING_PORT, RuntimeRecipe, ServeCommand, serve_command
from lora_api.spec import Accelerator, Spec
from lora_api.times import rfc3339, seconds_of
from lora_operator.actions import ApplyDeployment, ApplyService
from lora_operator.manifests.pods import (
    ENGINE_CONTAINER,
    FETCH_CONTAINER,
    Json,
    container_security,
    credentials,
    env_list,
    on_product,
    owner_reference,
    pod_basics,
    resources,
    scratch,
)
from lora_operator.manifests.probes import engine_probes
from lora_operator.observed import ObservedObject, Switch
from lora_operator.settings import Settings

MODELS_DIR = "/models"
PORT_NAME = "http"
_ENGINE_REQUESTS = {"cpu": "250m", "memory": "512Mi", "ephemeral-storage": "1Gi"}
_FETCH_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
_WEEK_SECONDS = 604_800
_LONGEST_PRE_STOP_SECONDS = 15
"""For endpoints to be taken out everywhere before the engine stops listening."""


def release_deployment(
    parent: ObservedObject, spec: Spec, settings: Settings, action: ApplyDeployment
) -> Json:
    """The Deployment that an action asks for."""
    recipe = ServingRecipe.model_validate(dict(action.recipe))
    accelerator = Accelerator(resource=recipe.accelerator, product=recipe.product)
    marked = labels(parent.name, release=action.release)
    document: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": action.name,
            "namespace": parent.namespace,
            "labels": marked,
            "annotations": {
                ANNOTATION_DIGEST: action.digest,
                ANNOTATION_CANDIDATE: action.candidate,
                ANNOTATION_RECIPE: json.dumps(dict(action.recipe), sort_keys=True),
                **({ANNOTATION_BENCHMARK: action.benchmark} if action.benchmark else {}),
            },
            "ownerReferences": [owner_reference(parent)],
        },
        "spec": {
            "replicas": action.replicas,
            "revisionHistoryLimit": 2,
            # Our own deadline runs from container start: a queue for a node is no failure.
            "progressDeadlineSeconds": _WEEK_SECONDS,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "selector": {"matchLabels": release_selector(parent.name, action.release)},
            "template": {
                "metadata": {"labels": marked},
                "spec": _pod(parent, spec, settings, action, recipe, accelerator),
            },
        },
    }
    return with_spec_hash(document)


def release_service(parent: ObservedObject, spec: Spec, action: ApplyService) -> Json:
    """The Service that clients use, selecting one release."""
    service = spec.serving.service
    port = {
        "name": PORT_NAME,
        "port": service.port,
        "targetPort": PORT_NAME,
        "protocol": "TCP",
        "appProtocol": "http",
    }
    document: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": action.name,
            "namespace": parent.namespace,
            "labels": labels(parent.name),
            "annotations": _switch_annotation(action.switch),
            "ownerReferences": [owner_reference(parent)],
        },
        "spec": {
            "type": service.type.value,
            "selector": release_selector(parent.name, action.release),
            "ports": [port],
        },
    }
    return with_spec_hash(document)


def _switch_annotation(switch: Switch | None) -> dict[str, str]:
    if switch is None:
        return {}
    return {ANNOTATION_SWITCH: json.dumps(asdict(switch) | {"at": rfc3339(switch.at)})}


def with_spec_hash(document: Json) -> Json:
    """The document with the hash of its own content as an annotation."""
    metadata = document["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_SPEC_HASH: digest_of(document)}
    return {**document, "metadata": {**metadata, "annotations": annotations}}


def fetch_request(
    parent: ObservedObject, spec: Spec, settings: Settings, action: ApplyDeployment
) -> StageRequest:
    """What `lora-jobs fetch` is told: where the store is, how to reach it, and whom to trust.

    The release is told only where somebody must have signed for it, so that other pods stay as
    they are.
    """
    keys = spec.provenance.public_keys if spec.provenance else None
    release = _told(action) if keys else None
    return StageRequest(
        call=StageCall(stage=Stage.VERIFY, parents={"artifact": action.digest}),
        run=RunReference(namespace=parent.namespace, name=parent.name, uid=parent.uid),
        store=StoreReference(
            uri=spec.artifact.uri,
            scope=scope(parent.namespace, settings.cluster_name),
            connection=spec.artifact.connection,
        ),
        connections=[c for c in spec.connections or [] if c.name == spec.artifact.connection],
        public_keys=keys,
        release=release,
    )


def _told(action: ApplyDeployment) -> Release:
    """In one order of words, from the run or from the Deployment: another text would roll pods."""
    recipe = json.loads(json.dumps(dict(action.recipe), sort_keys=True))
    return Release(id=action.release, artifact=action.digest, recipe=recipe)


def _pod(
    parent: ObservedObject,
    spec: Spec,
    settings: Settings,
    action: ApplyDeployment,
    recipe: ServingRecipe,
    accelerator: Accelerator,
) -> Json:
    serving, runtime = spec.serving, RECIPES[recipe.runtime]
    request = fetch_request(parent, spec, settings, action)
    secrets, secret_mounts = credentials(request.connections, read_only=True)
    model, model_mount = scratch("model", MODELS_DIR)
    if serving.model_volume:
        claim = serving.model_volume.persistent_volume_claim.claim_name
        model = {"name": model["name"], "persistentVolumeClaim": {"claimName": claim}}
    model_dir = _model_dir(spec, recipe, action.digest)
    tmp, tmp_mount = scratch("tmp", "/tmp")  # noqa: S108 - an emptyDir of this pod alone
    volumes, engine_mounts = [model, tmp, *secrets], [{**model_mount, "readOnly": True}, tmp_mount]
    if runtime.shared_memory_bytes:
        shm, shm_mount = scratch("shm", "/dev/shm", runtime.shared_memory_bytes)  # noqa: S108
        volumes.append(shm)
        engine_mounts.append(shm_mount)
    fetch_mounts = [model_mount, tmp_mount, *secret_mounts]
    fetch = _fetch_container(settings, request, model_dir, fetch_mounts)
    engine = _engine_container(spec, recipe, runtime, accelerator, model_dir)
    engine |= {"volumeMounts": engine_mounts}
    pod = pod_basics(serving.scheduling, serving.service_account_name) | {
        "terminationGracePeriodSeconds": serving.termination_grace_period_seconds,
        "initContainers": [fetch],
        "containers": [engine],
        "volumes": volumes,
        "topologySpreadConstraints": [
            _on_many_nodes(release_selector(parent.name, action.release))
        ],
    }
    return on_product(pod, accelerator)


def _on_many_nodes(selector: dict[str, str]) -> Json:
    """Replicas of a release on different nodes where there are some; never a reason to wait."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }


def _fetch_container(
    settings: Settings, request: StageRequest, model_dir: str, mounts: list[Json]
) -> Json:
    environment = {
        REQUEST_ENV: request.to_env(),
        RESULT_PATH_ENV: DEFAULT_RESULT_PATH,
        CREDENTIALS_DIR_ENV: DEFAULT_CREDENTIALS_DIR,
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of this pod alone
    }
    digest = request.call.parents["artifact"]
    return {
        "name": FETCH_CONTAINER,
        "image": settings.jobs_image,
        "command": ["lora-jobs", "fetch", "--digest", digest, "--output", model_dir],
        "env": env_list(environment),
        "resources": {"requests": _FETCH_REQUESTS},
        "securityContext": container_security(),
        "terminationMessagePath": DEFAULT_RESULT_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }


def _engine_container(
    spec: Spec,
    recipe: ServingRecipe,
    runtime: RuntimeRecipe,
    accelerator: Accelerator,
    model_dir: str,
) -> Json:
    serving = spec.serving
    grace_seconds = serving.termination_grace_period_seconds
    pre_stop_seconds = max(1, min(_LONGEST_PRE_STOP_SECONDS, grace_seconds // 4))
    start_seconds = seconds_of(serving.strategy.start_deadline)
    command = _command(recipe, model_dir)
    container: Json = {
        "name": ENGINE_CONTAINER,
        "image": recipe.image,
        "command": command.argv,
        "env": env_list({"HOME": "/tmp"} | command.env),  # noqa: S108 - an emptyDir of this pod
        "ports": [{"name": PORT_NAME, "containerPort": SERVING_PORT, "protocol": "TCP"}],
        "resources": resources(
            serving.scheduling.resources, _ENGINE_REQUESTS, accelerator, wants_it=True
        ),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop_seconds}}},
        **engine_probes(runtime, recipe.model_name, PORT_NAME, start_seconds),
    }
    return container | ({"workingDir": command.working_dir} if command.working_dir else {})


def _model_dir(spec: Spec, recipe: ServingRecipe, digest: str) -> str:
    """Its last part is the model's name: some engines know the model by it.

    On a volume that is shared each artifact has a folder of its own.
    """
    shared = f"{digest.replace(':', '-')}/" if spec.serving.model_volume else ""
    return f"{MODELS_DIR}/{shared}{recipe.model_name}"


def _command(recipe: ServingRecipe, model_dir: str) -> ServeCommand:
    return serve_command(
        recipe.runtime,
        model_dir,
        recipe.model_name,
        SERVING_PORT,
        recipe.args,
        recipe.env,
        recipe.accelerator,
    )
