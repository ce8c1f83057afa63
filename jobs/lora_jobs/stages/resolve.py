"""resolve: pin every source, prove that the run can begin, and say what is done already.

    sources -> pins (written once) -> checks -> walk of the action cache -> pins, image, done

A CPU Job of seconds, before any accelerator is asked for. Every failure is of the Waiting kind: a
corrected Secret, bucket or file continues by itself. For that a pin is written only when all
checks have passed, since a pinned mistake could not be corrected without `spec.refresh`.

Bucket and hub sources stay what they were pinned to until `refresh` changes. Local files are
resolved at every run: there the run itself is the user's word that things may have changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lora_api import layout
from lora_api.digests import canonical_json
from lora_api.jobcontract import PinnedSource, Progress, Reason, StageRequest, StageResult
from lora_api.line import Line, walk
from lora_api.sources import requested_sources
from lora_api.spec import Spec, parse_spec
from lora_jobs.attesting.signing import signing_key
from lora_jobs.connections import find_connection, is_local_run
from lora_jobs.context import StageContext
from lora_jobs.errors import Refused, Waiting
from lora_jobs.sources.compatibility import check_adapter, check_base
from lora_jobs.sources.fetching import check_unchanged
from lora_jobs.sources.pins import Pin
from lora_jobs.sources.place import Source, open_source, pin_source
from lora_jobs.sources.quantizable import check_recipes
from lora_jobs.sources.readable import check_has_prompts, check_has_records
from lora_jobs.sources.selection import SourceKind
from lora_jobs.store.actions import read_action
from lora_jobs.store.documents import create_or_adopt_json, read_json
from lora_jobs.store.interface import ObjectMissing, ObjectStore
from lora_jobs.store.opening import open_store


@dataclass(frozen=True)
class Resolved:
    """One source and what it stands for.

    Attributes:
        key: Identity of the reference; the pin stands at `layout.pin(name, key)`.
        is_new: Resolved just now; False when an earlier run pinned it.
    """

    requested: PinnedSource
    source: Source
    pin: Pin
    key: str
    is_new: bool


def run(context: StageContext) -> StageResult:
    """Resolve the spec of the request.

    Raises:
        Waiting: Always this kind, whatever is wrong.
    """
    try:
        return _resolve(context)
    except Refused as error:
        raise Waiting(error.reason, str(error)) from error


def _resolve(context: StageContext) -> StageResult:
    request = context.request
    spec = _spec(request.spec)
    store = open_store(request.store, request.connections)
    resolved = _resolve_sources(context, spec, store)
    _check(resolved)
    if spec.evaluation.task.scorer:
        check_has_prompts(resolved["task"].source, resolved["task"].pin)
    resolved = {name: _pinned(store, request.run.name, found) for name, found in resolved.items()}
    image = spec.serving.image or _pinned_image(store, request, spec.serving.runtime)
    pins = {name: found.pin.digest for name, found in resolved.items()}
    line = walk(spec, request.run.name, pins, image, lambda call: read_action(store, call))
    if line.missing:
        check_recipes(spec, resolved["base"].source, resolved["base"].pin)
        _prove_signing(spec)
        _prove_access(request, store, resolved.values())
    return _result(request, resolved, image, line)


def _spec(document: dict[str, Any] | None) -> Spec:
    try:
        return parse_spec(document or {})
    except ValueError as error:
        raise Waiting(Reason.INVALID_INPUT, f"the spec is not valid: {error}") from None


def _resolve_sources(context: StageContext, spec: Spec, store: ObjectStore) -> dict[str, Resolved]:
    wanted = requested_sources(spec)
    resolved = {}
    for number, (name, requested) in enumerate(wanted.items(), start=1):
        try:
            resolved[name] = _resolve_source(context.request, store, name, requested, spec.refresh)
        except ObjectMissing as missing:
            raise Waiting(
                Reason.SOURCE_CHANGED,
                f"{requested.uri} changes while it is read ({missing}); tried again later",
            ) from None
        context.progress(
            Progress(done=number, total=len(wanted), unit="sources", message=requested.uri)
        )
    return resolved


def _resolve_source(
    request: StageRequest, store: ObjectStore, name: str, requested: PinnedSource, refresh: str
) -> Resolved:
    kind = SourceKind.of(name)
    connection = find_connection(request.connections, requested.connection)
    if requested.uri.startswith("file://"):
        source = open_source(requested.uri, "", connection)
        pin = pin_source(kind, source)
        by_content = layout.pin_key("file", "", requested.uri, pin.digest, refresh)
        return Resolved(requested, source, pin, by_content, is_new=True)
    earlier = _read_pin(store, layout.pin(request.run.name, requested.key))
    # An earlier pin is read by its commit: the branch may have moved since.
    source = open_source(
        requested.uri, earlier.revision if earlier else requested.revision, connection
    )
    pin = earlier or pin_source(kind, source)
    return Resolved(requested, source, pin, requested.key, is_new=not earlier)


def _read_pin(store: ObjectStore, key: str) -> Pin | None:
    try:
        pin = Pin.model_validate(read_json(store, key))
    except ValueError:
        return None
    return pin if pin.is_consistent() else None


def _check(resolved: Mapping[str, Resolved]) -> None:
    """Refuse what cannot work, as far as it is new."""
    base = resolved["base"]
    if base.is_new:
        check_base(base.source)
    for name, found in resolved.items():
        match SourceKind.of(name):
            case SourceKind.ADAPTER if found.is_new or base.is_new:
                check_adapter(found.source, found.pin, base.source, base.pin)
            case SourceKind.DATA if found.is_new:
                check_has_records(found.source, found.pin)
    calibration = [r for name, r in resolved.items() if name.startswith("calibration")]
    evaluation = [resolved[name] for name in ("task", "general") if name in resolved]
    for seen in calibration:
        for held_out in evaluation:
            _check_disjoint(seen.pin, held_out.pin)


def _check_disjoint(seen: Pin, held_out: Pin) -> None:
    """By file; `quantize` and `evaluate` look at the records."""
    contents = {(f.size, f.sha256 or f.etag) for f in seen.files if f.size}
    if any((f.size, f.sha256 or f.etag) in contents for f in held_out.files):
        raise Refused(
            Reason.DATASET_OVERLAP,
            f"the calibration set {seen.uri} and the evaluation set {held_out.uri} hold the same "
            "file; evaluate on texts that quantization has not seen",
        )


def _pinned(store: ObjectStore, owner: str, found: Resolved) -> Resolved:
    """Write a new pin; when somebody else was quicker, theirs holds."""
    if not found.is_new:
        return found
    key = layout.pin(owner, found.key)
    standing = create_or_adopt_json(store, key, found.pin.to_json())
    return replace(found, pin=Pin.model_validate(standing))


def _pinned_image(store: ObjectStore, request: StageRequest, runtime: str) -> str:
    """The default of the first run, so that a new default changes nothing that runs.

    A local run has none to pin: its word must not stand where a cluster reads it.
    """
    if is_local_run():
        return request.default_image
    key = layout.pin(request.run.name, layout.pin_key("image", "", runtime, "", ""))
    image = request.default_image
    if not image and (read_json(store, key) is None):
        raise Waiting(
            Reason.INVALID_INPUT,
            f"there is no default image for runtime {runtime}; set spec.serving.image, or give all "
            f"objects one by the chart's images.serving.{runtime.upper()}",
        )
    return str(create_or_adopt_json(store, key, {"image": image})["image"])


def _prove_signing(spec: Spec) -> None:
    """What is made must be signed in the end, with a key that is trusted."""
    if spec.provenance and (spec.provenance.signing or spec.provenance.public_keys):
        signing_key(spec.provenance)


def _prove_access(request: StageRequest, store: ObjectStore, resolved: Iterable[Resolved]) -> None:
    """There is work: what was pinned earlier must still be there, and the store writable."""
    for earlier in resolved:
        if not earlier.is_new:
            check_unchanged(earlier.source, earlier.pin)
    store.write(layout.probe(request.run.name), canonical_json({"uid": request.run.uid}))


def _result(
    request: StageRequest, resolved: Mapping[str, Resolved], image: str, line: Line
) -> StageResult:
    pins = {
        name: found.requested.model_copy(
            update={
                "key": found.key,
                "digest": found.pin.digest,
                "revision": found.pin.revision,
            }
        )
        for name, found in resolved.items()
    }
    result = StageResult(
        stage=request.call.stage,
        input_hash=request.call.input_hash,
        pins=pins,
        image=image,
        done=[result for _, result in line.done],
        message=_next_step(line),
    )
    return _fitting(result)


def _next_step(line: Line) -> str:
    if line.missing is None:
        return f"{len(line.done)} stages are done, nothing is missing"
    return f"{len(line.done)} stages are done, next is {line.missing.stage}"


def _fitting(result: StageResult) -> StageResult:
    """Drop the last done stages until the message fits: their Jobs find the entry themselves."""
    while result.done:
        try:
            result.to_termination_message()
        except ValueError:
            result = result.model_copy(update={"done": result.done[:-1]})
        else:
            break
    return result
