"""Stage programs that only answer, and the store they share: what ran is on record.

For tests of the operator on a real API server: results have the right identities, so that the line
of stages goes on, and `resolve` walks what is "stored" as the real one does.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from builders import measurements, merged_against_base, without_quantized
from lora_api.digests import digest_of
from lora_api.jobcontract import (
    REQUEST_ENV,
    WORKING_STAGES,
    ExitCode,
    Reason,
    Stage,
    StageCall,
    StageFailure,
    StageRequest,
    StageResult,
)
from lora_api.line import walk
from lora_api.sources import requested_sources
from lora_api.spec import parse_spec
from stand_in_kubelet import Ended, environment_of

BAD_ADAPTER = "bad"
"""An adapter whose URI ends so makes a quantized model of twice the perplexity."""


@dataclass
class CannedStages:
    """The programs of one namespace.

    Attributes:
        ran: Working stages that did work, in their order.
        held: Stages that run on until they are taken out.
        waiting: Stages that end with this reason until they are taken out.
        crashing: Stages that end with this exit code, without a document.
        pods: Uids of the pods that ran, by stage.
        prepared: The store has every result already, for tests of what comes after.
        published: The adapter's URI by the id of the release that publish has put on record.
        verified: Ids of the releases that verify has passed.
        accelerator_seconds: That each working stage says that it held.
    """

    ran: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    waiting: dict[str, Reason] = field(default_factory=dict)
    crashing: dict[str, Ended] = field(default_factory=dict)
    store: dict[str, StageResult] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    pods: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    prepared: bool = False
    published: dict[str, str] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    accelerator_seconds: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, pod: dict[str, Any]) -> Ended | None:
        """What the pod's stage program ends with; None while it is held."""
        request = StageRequest.model_validate_json(environment_of(pod)[REQUEST_ENV])
        stage = request.call.stage.value
        self.asked.add(stage)
        self.pods[stage].add(pod["metadata"]["uid"])
        if stage in self.held:
            return None
        if stage in self.crashing:
            return self.crashing[stage]
        if stage in self.waiting:
            failure = StageFailure(failure=self.waiting[stage], message="not yet; create it")
            return Ended(ExitCode.WAITING, failure.model_dump_json(by_alias=True))
        return Ended(0, self._result(request).to_termination_message())

    def store_of(self, stage: str) -> str:
        """Digest of the only result of a stage."""
        (digest,) = (r.digest for r in self.store.values() if r.stage == stage)
        return digest

    def _result(self, request: StageRequest) -> StageResult:
        call = request.call
        if call.stage is Stage.RESOLVE:
            return self._resolved(request)
        result = StageResult(stage=call.stage, input_hash=call.input_hash)
        if call.stage is Stage.PUBLISH and request.release:
            self.records[request.release.id] = {
                "release": request.release,
                "benchmark": call.parents["benchmark"],
            }
        if call.stage is Stage.RECALL:
            return result.model_copy(update=self.records[call.parameters["release"]])
        if call.stage not in WORKING_STAGES:
            self._record(request)
            report = "s3://models/store/report.html" if call.stage is Stage.REPORT else ""
            return result.model_copy(update={"report_uri": report})
        with self._lock:
            if call.input_hash not in self.store:
                self.ran.append(call.stage.value)
            return self._stored(call)

    def _record(self, request: StageRequest) -> None:
        if request.release is None:
            return
        if request.call.stage is Stage.PUBLISH:
            adapter = parse_spec(request.spec or {}).adapters[0]
            self.published[request.release.id] = adapter.uri
        elif request.call.stage is Stage.VERIFY:
            self.verified.add(request.release.id)

    def _stored(self, call: StageCall) -> StageResult:
        """The result in the store, put there now if it is not."""
        made = {"accelerator_seconds": self.accelerator_seconds} | self._work(call)
        new = StageResult(stage=call.stage, input_hash=call.input_hash, **made)
        return self.store.setdefault(call.input_hash, new)

    def _known(self, call: StageCall) -> StageResult | None:
        return self._stored(call) if self.prepared else self.store.get(call.input_hash)

    def _resolved(self, request: StageRequest) -> StageResult:
        spec = parse_spec(request.spec or {})
        pins = {
            name: source.model_copy(update={"digest": digest_of(source.uri)})
            for name, source in requested_sources(spec).items()
        }
        self.uris |= {digest_of(s.uri): s.uri for s in pins.values()}
        image = spec.serving.image or request.default_image
        digests = {name: s.digest for name, s in pins.items()}
        line = walk(spec, request.run.name, digests, image, self._known)
        return StageResult(
            stage=Stage.RESOLVE,
            input_hash=request.call.input_hash,
            pins=pins,
            image=image,
            done=[result for _, result in line.done],
        )

    def _work(self, call: StageCall) -> dict[str, Any]:
        if call.stage in (Stage.MERGE, Stage.QUANTIZE):
            return {"digest": digest_of([call.stage.value, call.input_hash])}
        adapter = self.uris.get(call.parents.get("adapter0", ""), "")
        quality, speed = measurements(task_ratio=13.4 if adapter.endswith(BAD_ADAPTER) else 1.01)
        if "quantized" not in call.parents:  # method None
            quality, speed = without_quantized(quality), merged_against_base(speed)
        return {"measurements": speed if call.stage is Stage.BENCHMARK else quality}
