"""What each stage program is asked: from a spec and the line's state to a `StageRequest`. Pure.

The operator and the local run build their requests here, so that both ask for equal work and reuse
each other's results.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lora_api.digests import digest_of
from lora_api.gates import gates_hash
from lora_api.jobcontract import (
    Endpoint,
    PinnedSource,
    Release,
    RunReference,
    Stage,
    StageCall,
    StageRequest,
    StoreReference,
)
from lora_api.line import Line, run_id
from lora_api.sources import connections_of, requested_sources
from lora_api.spec import Spec


@dataclass(frozen=True)
class StageRequests:
    """The requests of one object."""

    spec: Spec
    run: RunReference
    store: StoreReference
    _run_ids: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False, compare=False)
    """Those that were asked for: a plan asks three times."""

    def resolve(self, call: StageCall, default_image: str) -> StageRequest:
        """Pin the sources, or `default_image` for a spec without one; walk the action cache."""
        sources, document = requested_sources(self.spec), self.spec.to_json()
        return self._request(call, sources, spec=document, default_image=default_image)

    def work(self, call: StageCall, pins: Mapping[str, PinnedSource]) -> StageRequest:
        """One working stage. It is told of every source: sets are checked against each other."""
        return self._request(call, pins)

    def run_id(self, pins: Mapping[str, PinnedSource], image: str) -> str:
        """Identity of the run's inputs; `image` is the pinned serving image."""
        digests = {name: pin.digest for name, pin in pins.items()}
        asked = (image, *(word for pair in sorted(digests.items()) for word in pair))
        if asked not in self._run_ids:
            self._run_ids[asked] = run_id(self.spec, digests, image)
        return self._run_ids[asked]

    def report(self, line: Line, pins: Mapping[str, PinnedSource], image: str) -> StageRequest:
        """Write the report of a judged line, whatever the verdict."""
        run = self.run_id(pins, image)
        call = StageCall(
            stage=Stage.REPORT,
            parents=_measured_by(line),
            parameters={"run": run, "gates": self._rules},
        )
        return self._record(call, line, pins, run_id=run, default_image=image)

    def publish(
        self, line: Line, pins: Mapping[str, PinnedSource], image: str
    ) -> StageRequest | None:
        """Record the line's release and this judgement of it; None when it has no release."""
        if line.release is None:
            return None
        signed = self.spec.provenance
        call = StageCall(
            stage=Stage.PUBLISH,
            parents=_measured_by(line),
            parameters={
                "release": line.release.id,
                "gates": self._rules,
                # Other keys: it is signed again. Nothing where nobody asks, as before.
                **({"provenance": signed.digest} if signed else {}),
            },
        )
        run = self.run_id(pins, image)
        return self._record(call, line, pins, run_id=run, release=line.release)

    def verify(
        self, release: Release, benchmark: str, deployment_uid: str, endpoints: list[Endpoint]
    ) -> StageRequest:
        """Ask every ready pod whether it answers as the benchmark recorded."""
        call = verify_call(release, benchmark, deployment_uid)
        return self._request(call, {}, release=release, endpoints=endpoints)

    def recall(self, release: str) -> StageRequest:
        """What the release of this id is, and whether a trusted key has signed for it."""
        keys = self.spec.provenance.public_keys if self.spec.provenance else None
        trusted = {"publicKeys": digest_of(keys)} if keys else {}
        call = StageCall(stage=Stage.RECALL, parameters={"release": release, **trusted})
        return self._request(call, {}, public_keys=keys)

    def collect(self, kept: Iterable[str]) -> StageRequest:
        """Remove this object's other releases, and what only they needed."""
        call = StageCall(stage=Stage.COLLECT, parameters={"keep": sorted(kept)})
        return self._request(call, {})

    def _record(
        self, call: StageCall, line: Line, pins: Mapping[str, PinnedSource], **more: Any
    ) -> StageRequest:
        document = self.spec.to_json()
        return self._request(call, pins, spec=document, judgement=line.judgement, **more)

    @cached_property
    def _rules(self) -> str:
        return gates_hash(self.spec.gates, self.spec.overrides or ())

    def _request(
        self, call: StageCall, sources: Mapping[str, PinnedSource], **more: Any
    ) -> StageRequest:
        return StageRequest(
            call=call,
            run=self.run,
            store=self.store,
            connections=connections_of(self.spec, sources.values()),
            sources=dict(sources),
            limits={"maxDuration": self.spec.benchmark.max_duration},
            **more,
        )


def verify_call(release: Release, benchmark: str, deployment_uid: str) -> StageCall:
    """A verification is of one release in one Deployment, whichever pods it has.

    `benchmark` is the input hash of the one whose recorded answers are expected.
    """
    return StageCall(
        stage=Stage.VERIFY,
        parents={"quantized": release.artifact, "benchmark": benchmark},
        parameters={"release": release.id, "deployment": deployment_uid},
    )


def _measured_by(line: Line) -> dict[str, str]:
    """Stage -> input hash of its action entry, for the candidate that was chosen or tried last."""
    return {call.stage.value: result.input_hash for call, result in line.done}
