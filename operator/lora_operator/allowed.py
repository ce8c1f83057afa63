"""What the administrator lets objects name: nobody reaches through us what is not theirs.

Patterns are those of a shell (`registry.example/*`); the images of the chart are always allowed.
Endpoints are matched by their host alone, in lower case and without a final dot.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lora_api.conditions import ConditionReason
from lora_api.connections import AWS_HOST, HUB_HOST
from lora_api.sourcespec import Source, claim_of
from lora_api.spec import Spec
from lora_operator.failures import Cure, Trouble

ANY = ("*",)
_PUBLIC = {"s3": AWS_HOST, "hf": HUB_HOST}


@dataclass(frozen=True)
class Allowed:
    """Patterns; an empty tuple allows none."""

    images: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ANY
    secrets: tuple[str, ...] = ANY
    claims: tuple[str, ...] = ANY
    endpoints: tuple[str, ...] = ANY
    runtimes: tuple[str, ...] = ANY


@dataclass(frozen=True)
class _Named:
    """One name that a spec gives, and what may stand there."""

    field: str
    name: str
    patterns: tuple[str, ...]
    value: str
    """The chart's value that holds the patterns."""
    verb: str = "names"


def refusal_of(spec: Spec, allowed: Allowed, own_images: Iterable[str]) -> Trouble | None:
    """Why this object may not run at all; None when all that it names is allowed."""
    images = (*allowed.images, *own_images)
    giver = f" with profile {spec.profile}" if spec.profile else ""
    for named in _names(spec, allowed, images):
        if named.name and not _allows(named.patterns, named.name):
            listed = _listed(named.patterns)
            return Trouble(
                ConditionReason.NOT_ALLOWED,
                f"spec.{named.field}{giver} {named.verb} {named.name}, which the administrator "
                f"does not allow ({listed}); name another, or have it added to the chart's "
                f"{named.value}",
                Cure.CHANGE,
            )
    return None


def refusal_of_stored(
    images: Iterable[str], runtimes: Iterable[str], allowed: Allowed, own_images: Iterable[str]
) -> Trouble | None:
    """Why what came out of the bucket may not run; whoever writes there chose it.

    Args:
        images: Of the object's first run and of a pinned release; empty while unknown.
        runtimes: Of a pinned release; empty likewise.
        allowed: What the administrator allows besides the chart's own.
        own_images: The chart's own.
    """
    named = [("image", name, (*allowed.images, *own_images)) for name in images]
    named += [("runtime", name, allowed.runtimes) for name in runtimes]
    for field, name, patterns in named:
        if name and not _allows(patterns, name):
            return Trouble(
                ConditionReason.NOT_ALLOWED,
                f"the bucket names the serving {field} {name}, which the administrator does not "
                f"allow ({_listed(patterns)}); name another in spec.serving.{field}, or have it "
                f"added to the chart's allowed.{field}s",
                Cure.CHANGE,
            )
    return None


def _allows(patterns: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _listed(patterns: tuple[str, ...]) -> str:
    """For people: one image may serve several runtimes."""
    return ", ".join(dict.fromkeys(patterns)) or "none"


def _names(spec: Spec, allowed: Allowed, images: tuple[str, ...]) -> Iterator[_Named]:
    yield _Named("serving.image", spec.serving.image, images, "allowed.images")
    yield _Named("serving.runtime", spec.serving.runtime, allowed.runtimes, "allowed.runtimes")
    for place, name in (
        ("serving", spec.serving.service_account_name),
        ("jobs.defaults", spec.jobs.defaults.service_account_name),
    ):
        field = f"{place}.serviceAccountName"
        yield _Named(field, name, allowed.service_accounts, "allowed.serviceAccounts")
    for field, name in _secrets(spec):
        yield _Named(field, name, allowed.secrets, "allowed.secrets")
    for field, name in _claims(spec):
        yield _Named(field, name, allowed.claims, "allowed.claims")
    hosts = tuple(pattern.lower() for pattern in allowed.endpoints)
    for field, host, verb in _hosts(spec):
        yield _Named(field, host, hosts, "allowed.endpoints", verb)


def _secrets(spec: Spec) -> Iterator[tuple[str, str]]:
    for connection in spec.connections or ():
        s3, hub = connection.s3, connection.hugging_face
        references = {
            "s3.secretRef": s3.secret_ref if s3 else None,
            "s3.readSecretRef": s3.read_secret_ref if s3 else None,
            "huggingFace.secretRef": hub.secret_ref if hub else None,
        }
        for place, reference in references.items():
            if reference:
                yield f"connections[{connection.name}].{place}.name", reference.name
    if spec.provenance and spec.provenance.signing:
        yield "provenance.signing.secretRef.name", spec.provenance.signing.secret_ref.name


def _claims(spec: Spec) -> Iterator[tuple[str, str]]:
    if spec.jobs.defaults.cache:
        claim = spec.jobs.defaults.cache.persistent_volume_claim.claim_name
        yield "jobs.defaults.cache.persistentVolumeClaim.claimName", claim
    if spec.serving.model_volume:
        claim = spec.serving.model_volume.persistent_volume_claim.claim_name
        yield "serving.modelVolume.persistentVolumeClaim.claimName", claim
    for field, source in _sources(spec):
        yield f"{field}.uri", claim_of(source.uri)


def _hosts(spec: Spec) -> Iterator[tuple[str, str, str]]:
    """Field, host and verb of all that is reached; what names no endpoint reaches a public one."""
    for connection in spec.connections or ():
        kind = "s3" if connection.s3 else "huggingFace"
        given = connection.s3 or connection.hugging_face
        verb = "names" if given and given.endpoint else "is unset and so names"
        yield f"connections[{connection.name}].{kind}.endpoint", connection.host, verb
    store = Source(uri=spec.artifact.uri, connection=spec.artifact.connection)
    for field, source in (("artifact", store), *_sources(spec)):
        scheme = source.uri.partition("://")[0]
        if not (source.connection or (scheme == "s3" and store.connection)):
            yield f"{field}.uri", _PUBLIC.get(scheme, ""), "has no connection and so names"


def _sources(spec: Spec) -> Iterator[tuple[str, Source]]:
    yield "baseModel", spec.base_model
    for number, adapter in enumerate(spec.adapters):
        yield f"adapters[{number}]", adapter.as_source()
    for number, source in enumerate(spec.quantization.calibration_sources):
        yield f"quantization.calibration.sources[{number}]", source.as_source()
    yield "evaluation.task", spec.evaluation.task
    if spec.evaluation.general:
        yield "evaluation.general", spec.evaluation.general
