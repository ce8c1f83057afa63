"""What a stage program is asked: the one way from a spec to a `StageRequest`. Pure.

The operator puts these into Jobs and the local run into child processes, so that both ask for the
same work with the same words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_api.jobcontract import (
    PinnedSource,
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
    """The requests of one object.

    Attributes:
        document: The spec as the user wrote it, for the record and for `resolve`.
    """

    spec: Spec
    document: dict[str, Any]
    run: RunReference
    store: StoreReference

    def resolve(self, default_image: str) -> StageRequest:
        """Pin the sources; `default_image` is pinned when the spec names no serving image."""
        sources = requested_sources(self.spec)
        call = StageCall(stage=Stage.RESOLVE, parameters={"run": self.run.to_json()})
        return self._request(call, sources, spec=self.document, default_image=default_image)

    def work(self, call: StageCall, pins: Mapping[str, PinnedSource]) -> StageRequest:
        """One working stage. It is told of every source: sets are checked against each other."""
        limits = {}
        if call.stage is Stage.BENCHMARK:
            limits["maxDuration"] = self.spec.benchmark.max_duration
        return self._request(call, pins, limits=limits)

    def record(
        self, stage: Stage, line: Line, pins: Mapping[str, PinnedSource], image: str
    ) -> StageRequest:
        """`report` or `publish` of a judged line; `image` is the pinned serving image."""
        digests = {name: pin.digest for name, pin in pins.items()}
        assert line.judgement is not None  # there is nothing to record before it
        call = StageCall(
            stage=stage,
            parents=digests,
            parameters={"judgement": line.judgement.to_json(), "image": image},
        )
        return self._request(
            call,
            pins,
            spec=self.document,
            default_image=image,
            judgement=line.judgement,
            run_id=run_id(self.spec, digests, image),
            release=line.release,
        )

    def _request(
        self, call: StageCall, sources: Mapping[str, PinnedSource], **more: Any
    ) -> StageRequest:
        return StageRequest(
            call=call,
            run=self.run,
            store=self.store,
            connections=connections_of(self.spec, sources.values()),
            sources=dict(sources),
            **more,
        )
