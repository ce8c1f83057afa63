"""The Job of a stage: one container that does what its environment says and leaves a result.

Jobs are created and never changed. How a stage ends is told by its exit code (`ExitCode`): a
refusal ends the Job at once, a disruption is not counted, all else is retried.
"""

from lora_api.jobcontract import (
    ACCELERATED_STAGES,
    CACHE_DIR_ENV,
    CACHE_LIMIT_ENV,
    CREDENTIALS_DIR_ENV,
    DEFAULT_CACHE_DIR,
    DEFAULT_CREDENTIALS_DIR,
    DEFAULT_RESULT_PATH,
    IMAGE_ENV,
    REQUEST_ENV,
    RESULT_PATH_ENV,
    SIGNING_STAGES,
    WORK_DIR_ENV,
    WORKING_STAGES,
    ExitCode,
    Stage,
    StageRequest,
)
from lora_api.naming import ANNOTATION_CANDIDATE, ANNOTATION_INPUT_HASH, labels
from lora_api.podspec import JobCache
from lora_api.runtimes import RECIPES, Runtime
from lora_api.spec import Spec
from lora_operator.actions import CreateJob
from lora_operator.manifests.pods import (
    STAGE_CONTAINER,
    Json,
    claims,
    container_security,
    credentials,
    env_list,
    on_product,
    owner_reference,
    pod_basics,
    resources,
    scratch,
    signing_key,
)
from lora_operator.observed import ObservedObject
from lora_operator.quantities import quantity_of
from lora_operator.settings import Settings

WORK_DIR = "/work"
_DAY_SECONDS = 86_400
_ENDS_THE_JOB = (ExitCode.REFUSED, ExitCode.WAITING, ExitCode.USAGE)
_SMALL = {"cpu": "50m", "memory": "128Mi"}
_DEFAULT_REQUESTS: dict[Stage, dict[str, str]] = {
    Stage.MERGE: {"cpu": "250m", "memory": "512Mi"},
    Stage.QUANTIZE: {"cpu": "500m", "memory": "1Gi"},
    Stage.EVALUATE: {"cpu": "500m", "memory": "1Gi"},
    Stage.BENCHMARK: {"cpu": "500m", "memory": "1Gi"},
}
"""Enough to be scheduled anywhere; real models are given theirs in `spec.jobs`."""


def stage_job(parent: ObservedObject, spec: Spec, settings: Settings, action: CreateJob) -> Json:
    """The Job that an action asks for."""
    call = action.request.call
    _, _, retries = spec.jobs.for_stage(call.stage)
    annotations = dict(spec.jobs.defaults.annotations or {})
    own = {ANNOTATION_INPUT_HASH: call.input_hash, ANNOTATION_CANDIDATE: call.candidate}
    marked = dict(spec.jobs.defaults.labels or {}) | labels(parent.name, stage=call.stage.value)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": action.name,
            "namespace": parent.namespace,
            "labels": marked,
            "annotations": annotations | own,
            "ownerReferences": [owner_reference(parent)],
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": retries,
            "podReplacementPolicy": "Failed",  # an accelerator is free only when its pod is gone
            "podFailurePolicy": {"rules": _failure_rules()},
            "ttlSecondsAfterFinished": _DAY_SECONDS,
            "template": {
                "metadata": {"labels": marked, "annotations": annotations},
                "spec": _pod(spec, settings, action.request),
            },
        },
    }


def stage_image(spec: Spec, settings: Settings, request: StageRequest) -> str:
    """Which image has the stage's programs; a benchmark runs in the image that will serve."""
    stage = request.call.stage
    if stage in (Stage.QUANTIZE, Stage.EVALUATE):
        return settings.quantize_image
    if stage is Stage.BENCHMARK:
        default = settings.serving_images.get(spec.serving.runtime, "")
        return str(request.call.parameters.get("image") or spec.serving.image or default)
    return settings.jobs_image


def _failure_rules() -> list[Json]:
    """The first that matches decides: a disruption is never taken for the program's word."""
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    exit_codes = {
        "containerName": STAGE_CONTAINER,
        "operator": "In",
        "values": sorted(int(code) for code in _ENDS_THE_JOB),
    }
    return [
        {"action": "Ignore", "onPodConditions": disrupted},
        {"action": "FailJob", "onExitCodes": exit_codes},
    ]


def _pod(spec: Spec, settings: Settings, request: StageRequest) -> Json:
    stage = request.call.stage
    scheduling, _, _ = spec.jobs.for_stage(stage)
    volumes, mounts = _volumes(spec, request)
    accelerator = spec.serving.accelerator
    image = stage_image(spec, settings, request)
    container: Json = {
        "name": STAGE_CONTAINER,
        "image": image,
        "command": ["lora-jobs", "stage"],
        "env": env_list(_environment(request, image) | _cache_environment(spec, stage)),
        "resources": resources(
            scheduling.resources,
            _DEFAULT_REQUESTS.get(stage, _SMALL),
            accelerator,
            wants_it=stage in ACCELERATED_STAGES,
        ),
        "securityContext": container_security(),
        "terminationMessagePath": DEFAULT_RESULT_PATH,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    pod = pod_basics(scheduling, spec.jobs.defaults.service_account_name)
    pod |= {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    return on_product(pod, accelerator) if stage is Stage.BENCHMARK else pod


def _environment(request: StageRequest, image: str) -> dict[str, str]:
    """The request and where things lie. The hub stays reachable: sources may lie there."""
    return {
        REQUEST_ENV: request.to_env(),
        RESULT_PATH_ENV: DEFAULT_RESULT_PATH,
        WORK_DIR_ENV: WORK_DIR,
        IMAGE_ENV: image,
        CREDENTIALS_DIR_ENV: DEFAULT_CREDENTIALS_DIR,
        "HOME": "/tmp",  # noqa: S108 - an emptyDir of this pod alone
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _cache(spec: Spec, stage: Stage) -> JobCache | None:
    """Only stages that fetch models use it."""
    return spec.jobs.defaults.cache if stage in WORKING_STAGES else None


def _cache_environment(spec: Spec, stage: Stage) -> dict[str, str]:
    cache = _cache(spec, stage)
    if cache is None:
        return {}
    limit = quantity_of(cache.size_limit) if cache.size_limit else None
    limits = {} if limit is None else {CACHE_LIMIT_ENV: str(int(limit))}
    return {CACHE_DIR_ENV: DEFAULT_CACHE_DIR} | limits


def _volumes(spec: Spec, request: StageRequest) -> tuple[list[Json], list[Json]]:
    scratches = [scratch("tmp", "/tmp"), scratch("work", WORK_DIR)]  # noqa: S108 - as above
    shared_memory_bytes = RECIPES[Runtime(spec.serving.runtime)].shared_memory_bytes
    if request.call.stage is Stage.BENCHMARK and shared_memory_bytes:
        scratches.append(scratch("shm", "/dev/shm", shared_memory_bytes))  # noqa: S108 - as above
    scratches += claims(source.uri for source in request.sources.values())
    if cache := _cache(spec, request.call.stage):
        claim = {"claimName": cache.persistent_volume_claim.claim_name}
        mount = {"name": "cache", "mountPath": DEFAULT_CACHE_DIR}
        scratches.append(({"name": "cache", "persistentVolumeClaim": claim}, mount))
    if request.call.stage in SIGNING_STAGES and spec.provenance and spec.provenance.signing:
        scratches.append(signing_key(spec.provenance.signing))
    secrets, mounts = credentials(request.connections)
    return [v for v, _ in scratches] + secrets, [m for _, m in scratches] + mounts
