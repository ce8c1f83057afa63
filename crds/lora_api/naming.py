"""Deterministic names and labels: the same inputs always name the same child."""

from lora_api import GROUP
from lora_api.digests import digest_of, short

LABEL_NAME = f"{GROUP}/name"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_RELEASE = f"{GROUP}/release"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
ANNOTATION_INPUT_HASH = f"{GROUP}/input-hash"
ANNOTATION_DIGEST = f"{GROUP}/artifact-digest"
ANNOTATION_RECIPE = f"{GROUP}/serving-recipe"
ANNOTATION_BENCHMARK = f"{GROUP}/benchmark"
ANNOTATION_CANDIDATE = f"{GROUP}/candidate"
ANNOTATION_RETRY = f"{GROUP}/retry-requested-at"
ANNOTATION_SPEC_HASH = f"{GROUP}/spec-hash"
"""Hash of what was last applied, so that equal intent writes nothing."""
ANNOTATION_SWITCH = f"{GROUP}/switch"
"""On the Service: when and from what it was switched to the release that it selects."""
ANNOTATION_GAVE_UP = f"{GROUP}/gave-up"
"""On a release's Deployment: why it was given up."""
FIELD_MANAGER = "lora-operator"

MAX_NAME = 40
"""Longest metadata.name: `<name>-benchmark-<hash8>` and its pod's labels stay within 63."""


def labels(name: str, **extra: str) -> dict[str, str]:
    """Labels of every child of the object `name`."""
    return {LABEL_NAME: name, LABEL_MANAGED_BY: "lora-operator"} | {
        f"{GROUP}/{key}": value for key, value in extra.items()
    }


def release_selector(name: str, release: str) -> dict[str, str]:
    """Labels that the pods of exactly one release have."""
    return {LABEL_NAME: name, LABEL_RELEASE: release}


def job_name(name: str, uid: str, stage: str, input_hash: str, attempt: int = 0) -> str:
    """The Job of a stage: a pure function of (uid, stage, input hash, attempt)."""
    identity = digest_of([uid, stage, input_hash, attempt])
    return f"{name}-{stage}-{short(identity)}"


def deployment_name(name: str, release_id: str) -> str:
    """The Deployment of a release."""
    return f"{name}-{release_id}"
