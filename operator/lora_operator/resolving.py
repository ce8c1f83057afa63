"""The resolve probe: which references are pinned, and what of the line the store has already.

Two identities decide when it runs again:

    pins   sources, revisions, `refresh`, endpoints, place of the store, runtime and serving image
    walk   pins, and what else the walk along the action cache depends on, gates included

While the pins are known the line is walked at once from what status remembers, so that changed
gates are judged without any Job. Before a stage's Job is started, resolve must have passed for the
walk: the store may hold the result. In status the stage `resolve` carries the walk as its
`inputHash` and the pins as its `digest`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lora_api.digests import digest_of
from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.line import recipes, source_names
from lora_api.parameters import BenchmarkParameters, EvaluateParameters, QuantizeParameters
from lora_api.sources import place, requested_sources
from lora_api.spec import Gptq, Spec
from lora_api.status import PinStatus, StageState, StageStatus
from lora_operator.probing import follow_probe
from lora_operator.stagerequests import resolve_request
from lora_operator.step import Step, changed, pending_entry
from lora_operator.view import View


@dataclass(frozen=True)
class Resolution:
    """What is known of the spec's references.

    Attributes:
        step: The probe as status tells it.
        pins: What each source was resolved to, empty until it is known.
        image: The pinned serving image.
        found: Results that the store had, by input hash; only in the look that took them.
        is_current: It has passed for this very walk, so that a stage may start.
    """

    step: Step
    pins: tuple[PinStatus, ...] = ()
    image: str = ""
    found: Mapping[str, StageResult] | None = None
    is_current: bool = False

    @property
    def digests(self) -> dict[str, str]:
        """Digest of every source by its name."""
        return {p.source: p.digest for p in self.pins}


def pins_identity(spec: Spec) -> str:
    """What decides the pins and the serving image."""
    artifact = spec.artifact
    return digest_of(
        {
            "sources": {n: s.key for n, s in requested_sources(spec).items()},
            "store": [artifact.uri, *place(spec, artifact.uri, artifact.connection)],
            "serving": [spec.serving.runtime.value, spec.serving.image],
        }
    )


def walk_identity(spec: Spec) -> StageCall:
    """The resolve call: its input hash covers all that decides the walk."""
    identity = {
        "pins": pins_identity(spec),
        "recipes": [
            [r.name, QuantizeParameters.of(spec, r.gptq).to_hashed()] for r in recipes(spec)
        ],
        "calibration": QuantizeParameters.of(spec, Gptq()).to_hashed(),
        "evaluate": EvaluateParameters.of(spec).to_hashed(),
        "benchmark": BenchmarkParameters.of(spec, spec.serving.image).to_hashed(),
        "gates": spec.gates.to_json(),
    }
    return StageCall(stage=Stage.RESOLVE, parameters={"walk": digest_of(identity)})


def recall(view: View) -> Resolution:
    """What status remembers, without looking at any Job."""
    call, entry = walk_identity(view.spec), _resolve_entry(view)
    entry = entry or pending_entry(call)
    is_current = entry.input_hash == call.input_hash and entry.state is StageState.SUCCEEDED
    names = {p.source for p in view.before.pins}
    if entry.digest != pins_identity(view.spec) or not names >= set(source_names(view.spec)):
        return Resolution(Step(entry))
    return Resolution(Step(entry), tuple(view.before.pins), view.before.image, None, is_current)


def resolve(view: View, known: Resolution, again: bool = False) -> Resolution:
    """Follow the probe, starting it where it has not passed for this walk."""
    step = follow_probe(view, resolve_request(view, walk_identity(view.spec)), again)
    result = step.result
    if result is None:
        still_valid = pins_identity(view.spec) if known.pins else ""
        entry = changed(step.entry, digest=still_valid)
        return replace(known, step=replace(step, entry=entry), is_current=step.succeeded)
    return Resolution(
        step=replace(step, entry=changed(step.entry, digest=pins_identity(view.spec))),
        pins=_pins(view.spec, result),
        image=result.image,
        found={r.input_hash: r for r in result.done},
        is_current=True,
    )


def _resolve_entry(view: View) -> StageStatus | None:
    return next((e for e in view.entries if e.name == Stage.RESOLVE), None)


def _pins(spec: Spec, result: StageResult) -> tuple[PinStatus, ...]:
    """In the order of the spec."""
    return tuple(
        PinStatus(
            source=name,
            uri=result.pins[name].uri,
            revision=result.pins[name].revision[:128],
            digest=result.pins[name].digest,
        )
        for name in source_names(spec)
        if name in result.pins
    )
