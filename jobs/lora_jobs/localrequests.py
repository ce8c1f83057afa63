"""What the local run asks each stage program: from a spec and a line to a `StageRequest`. Pure.

The operator's `stagerequests` says the same of what it observed, so that both ask for equal work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_api.gates import gates_hash
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
        return self._request(call, pins)

    def record(
        self, stage: Stage, line: Line, pins: Mapping[str, PinnedSource], image: str
    ) -> StageRequest:
        """`report` or `publish` of a judged line; `image` is the pinned serving image."""
        assert line.judgement is not None  # there is nothing to record before it
        run = run_id(self.spec, {name: pin.digest for name, pin in pins.items()}, image)
        call = StageCall(
            stage=stage,
            parents={done.stage.value: done.input_hash for done, _ in line.done},
            parameters={"run": run, "gates": gates_hash(self.spec.gates)},
        )
        return self._request(
            call,
            pins,
            spec=self.document,
            default_image=image,
            judgement=line.judgement,
            run_id=run,
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
            limits={"maxDuration": self.spec.benchmark.max_duration},
            **more,
        )
