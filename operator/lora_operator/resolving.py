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
from dataclasses import dataclass, field, replace

from lora_api.digests import digest_of
from lora_api.gates import rules_document
from lora_api.jobcontract import PinnedSource, Stage, StageCall, StageResult
from lora_api.line import recipes, source_names
from lora_api.parameters import BenchmarkParameters, EvaluateParameters
from lora_api.sources import place
from lora_api.status import StageState, StageStatus
from lora_operator.probing import follow_probe
from lora_operator.step import Step, changed, pending_entry
from lora_operator.view import View


@dataclass(frozen=True)
class Resolution:
    """What is known of the spec's references.

    Attributes:
        identity: Of the spec at this look.
        step: The probe as status tells it.
        pins: What each source was resolved to, in the order of the spec; empty until known.
        image: The pinned serving image.
        found: Results that the store had, by input hash; only in the look that took them.
        is_current: It has passed for this very walk, so that a stage may start.
    """

    identity: "Identity"
    step: Step
    pins: Mapping[str, PinnedSource] = field(default_factory=dict)
    image: str = ""
    found: Mapping[str, StageResult] | None = None
    is_current: bool = False

    def taken_over(self) -> "Resolution":
        """Passed for another walk, and this one needs nothing of the store.

        The older walk is forgotten: what the store had of it was told once, and status may have
        lost it since, so whoever comes back to it asks again.
        """
        entry = changed(self.step.entry, input_hash=self.identity.call.input_hash)
        return replace(self, step=replace(self.step, entry=entry))

    @property
    def digests(self) -> dict[str, str]:
        """Digest of every source by its name."""
        return {name: pin.digest for name, pin in self.pins.items()}


@dataclass(frozen=True)
class Identity:
    """What decides the pins, and the resolve call, whose input hash covers the whole walk."""

    pins: str
    call: StageCall


def identity_of(view: View) -> Identity:
    """The identity of the spec as it is now."""
    spec = view.spec
    pins = digest_of(
        {
            "sources": {n: s.key for n, s in view.sources.items()},
            "store": [spec.artifact.uri, *place(spec, spec.artifact.uri, spec.artifact.connection)],
            "serving": [spec.serving.runtime.value, spec.serving.image],
        }
    )
    walk = {
        "pins": pins,
        "recipes": [[r.name, r.to_hashed(spec)] for r in recipes(spec)],
        "evaluate": EvaluateParameters.of(spec).to_hashed(),
        "benchmark": BenchmarkParameters.of(spec, spec.serving.image).to_hashed(),
        "gates": rules_document(spec.gates, spec.overrides or ()),
        # Nothing where nobody asks, so that a new operator asks nothing again.
        **({"provenance": spec.provenance.digest} if spec.provenance else {}),
    }
    return Identity(pins, StageCall(stage=Stage.RESOLVE, parameters={"walk": digest_of(walk)}))


def recall(view: View) -> Resolution:
    """What status remembers, without looking at any Job."""
    identity, entry = identity_of(view), _resolve_entry(view)
    entry = entry or pending_entry(identity.call)
    names = {p.source for p in view.before.pins}
    if entry.digest != identity.pins or not names >= set(source_names(view.spec)):
        return Resolution(identity, Step(entry))
    is_of_this_walk = entry.input_hash == identity.call.input_hash
    return Resolution(
        identity,
        Step(entry),
        _remembered_pins(view),
        view.before.image,
        is_current=is_of_this_walk and entry.state is StageState.SUCCEEDED,
    )


def resolve(view: View, known: Resolution, again: bool = False) -> Resolution:
    """Follow the probe, starting it where it has not passed for this walk."""
    identity = known.identity
    settings, runtime = view.settings, view.spec.serving.runtime
    image = settings.serving_images.get(runtime, "")
    step = follow_probe(view, view.requests.resolve(identity.call, image), again)
    result = step.result
    if result is None:
        entry = changed(step.entry, digest=identity.pins if known.pins else "")
        return replace(known, step=replace(step, entry=entry), is_current=step.succeeded)
    return Resolution(
        identity,
        step=replace(step, entry=changed(step.entry, digest=identity.pins)),
        pins={n: result.pins[n] for n in source_names(view.spec) if n in result.pins},
        image=result.image,
        found={r.input_hash: r for r in result.done},
        is_current=True,
    )


def _resolve_entry(view: View) -> StageStatus | None:
    return next((e for e in view.entries if e.name == Stage.RESOLVE), None)


def _remembered_pins(view: View) -> dict[str, PinnedSource]:
    """The sources as status has pinned them; one that the spec lost since is left out."""
    requested = view.sources
    return {
        pin.source: requested[pin.source].model_copy(
            update={"digest": pin.digest, "revision": pin.revision}
        )
        for pin in view.before.pins
        if pin.source in requested
    }
