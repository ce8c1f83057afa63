"""What the administrator lets objects name: nobody reaches through us what is not theirs.

Patterns are those of a shell (`registry.example/*`); the images of the chart are always allowed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lora_api.conditions import ConditionReason
from lora_api.sourcespec import claim_of
from lora_api.spec import Spec
from lora_operator.failures import Cure, Trouble

ANY = ("*",)


@dataclass(frozen=True)
class Allowed:
    """Patterns; an empty tuple allows none."""

    images: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ANY
    secrets: tuple[str, ...] = ANY
    claims: tuple[str, ...] = ANY


@dataclass(frozen=True)
class _Named:
    """One name that a spec gives, and what may stand there."""

    field: str
    name: str
    patterns: tuple[str, ...]
    value: str
    """The chart's value that holds the patterns."""


def refusal_of(spec: Spec, allowed: Allowed, own_images: Iterable[str]) -> Trouble | None:
    """Why this object may not run at all; None when all that it names is allowed."""
    images = (*allowed.images, *own_images)
    giver = f" with profile {spec.profile}" if spec.profile else ""
    for named in _names(spec, allowed, images):
        if named.name and not any(fnmatchcase(named.name, p) for p in named.patterns):
            listed = _listed(named.patterns)
            return Trouble(
                ConditionReason.NOT_ALLOWED,
                f"spec.{named.field}{giver} names {named.name}, which the administrator does not "
                f"allow ({listed}); name another, or have it added to the chart's {named.value}",
                Cure.CHANGE,
            )
    return None


def refusal_of_stored(image: str, allowed: Allowed, own_images: Iterable[str]) -> Trouble | None:
    """Why an image that came out of the bucket may not run; whoever writes there chose it.

    Args:
        image: Of the object's first run, or of a pinned release; empty while it is unknown.
        allowed: What the administrator allows besides the chart's own.
        own_images: The chart's own.
    """
    patterns = (*allowed.images, *own_images)
    if not image or any(fnmatchcase(image, p) for p in patterns):
        return None
    return Trouble(
        ConditionReason.NOT_ALLOWED,
        f"the bucket names the serving image {image}, which the administrator does not allow "
        f"({_listed(patterns)}); name another in spec.serving.image, or have it added "
        "to the chart's allowed.images",
        Cure.CHANGE,
    )


def _listed(patterns: tuple[str, ...]) -> str:
    """For people: one image may serve several runtimes."""
    return ", ".join(dict.fromkeys(patterns)) or "none"


def _names(spec: Spec, allowed: Allowed, images: tuple[str, ...]) -> Iterator[_Named]:
    yield _Named("serving.image", spec.serving.image, images, "allowed.images")
    for place, name in (
        ("serving", spec.serving.service_account_name),
        ("jobs.defaults", spec.jobs.defaults.service_account_name),
    ):
        field = f"{place}.serviceAccountName"
        yield _Named(field, name, allowed.service_accounts, "allowed.serviceAccounts")
    for connection in spec.connections or ():
        s3, hub = connection.s3, connection.hugging_face
        references = {
            "s3.secretRef": s3.secret_ref if s3 else None,
            "s3.readSecretRef": s3.read_secret_ref if s3 else None,
            "huggingFace.secretRef": hub.secret_ref if hub else None,
        }
        for place, reference in references.items():
            field = f"connections[{connection.name}].{place}.name"
            name = reference.name if reference else ""
            yield _Named(field, name, allowed.secrets, "allowed.secrets")
    if spec.provenance and spec.provenance.signing:
        name = spec.provenance.signing.secret_ref.name
        yield _Named("provenance.signing.secretRef.name", name, allowed.secrets, "allowed.secrets")
    if spec.jobs.defaults.cache:
        claim = spec.jobs.defaults.cache.persistent_volume_claim.claim_name
        field = "jobs.defaults.cache.persistentVolumeClaim.claimName"
        yield _Named(field, claim, allowed.claims, "allowed.claims")
    if spec.serving.model_volume:
        claim = spec.serving.model_volume.persistent_volume_claim.claim_name
        field = "serving.modelVolume.persistentVolumeClaim.claimName"
        yield _Named(field, claim, allowed.claims, "allowed.claims")
    for field, uri in _source_uris(spec):
        yield _Named(f"{field}.uri", claim_of(uri), allowed.claims, "allowed.claims")


def _source_uris(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "baseModel", spec.base_model.uri
    for number, adapter in enumerate(spec.adapters):
        yield f"adapters[{number}]", adapter.uri
    for number, source in enumerate(spec.quantization.calibration_sources):
        yield f"quantization.calibration.sources[{number}]", source.uri
    yield "evaluation.task", spec.evaluation.task.uri
    if spec.evaluation.general:
        yield "evaluation.general", spec.evaluation.general.uri
