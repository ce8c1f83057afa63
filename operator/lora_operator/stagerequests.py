"""What each stage program is told: builders of `StageRequest`, one a kind of Job."""

from collections.abc import Iterable, Mapping

from lora_api.gates import Judgement, gates_hash
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
from lora_api.layout import scope
from lora_api.line import Line
from lora_api.sources import connections_of
from lora_api.status import PinStatus
from lora_operator.observed import ObservedDeployment
from lora_operator.view import View


def resolve_request(view: View, call: StageCall) -> StageRequest:
    """Pin these references and walk the action cache."""
    request = _request(view, call, view.sources)
    default_image = view.settings.serving_images.get(view.spec.serving.runtime, "")
    return request.model_copy(update={"spec": view.spec.to_json(), "default_image": default_image})


def stage_request(view: View, call: StageCall, pins: Iterable[PinStatus]) -> StageRequest:
    """Do one working stage. It is told of every source: sets are checked against each other."""
    return _request(view, call, _pinned(view, pins))


def report_request(
    view: View,
    line: Line,
    judgement: Judgement,
    run_id: str,
    pins: Iterable[PinStatus],
    image: str,
) -> StageRequest:
    """Write the report of a judged run, whatever the verdict."""
    call = StageCall(
        stage=Stage.REPORT,
        parents=measured_by(line),
        parameters={"run": run_id, "gates": gates_hash(view.spec.gates)},
    )
    request = _request(view, call, _pinned(view, pins))
    return request.model_copy(
        update={
            "spec": view.spec.to_json(),
            "judgement": judgement,
            "run_id": run_id,
            "default_image": image,
        }
    )


def publish_request(
    view: View,
    line: Line,
    release: Release,
    judgement: Judgement,
    run_id: str,
    pins: Iterable[PinStatus],
) -> StageRequest:
    """Record the release and this judgement of it."""
    call = StageCall(
        stage=Stage.PUBLISH,
        parents=measured_by(line),
        parameters={"release": release.id, "gates": gates_hash(view.spec.gates)},
    )
    request = _request(view, call, _pinned(view, pins))
    return request.model_copy(
        update={
            "spec": view.spec.to_json(),
            "judgement": judgement,
            "run_id": run_id,
            "release": release,
        }
    )


def verify_request(
    view: View,
    release: Release,
    benchmark: str,
    deployment: ObservedDeployment,
    endpoints: list[Endpoint],
) -> StageRequest:
    """Ask every ready pod whether it answers as the benchmark recorded."""
    call = verify_call(release, benchmark, deployment.uid)
    return _request(view, call, {}).model_copy(update={"release": release, "endpoints": endpoints})


def verify_call(release: Release, benchmark: str, deployment_uid: str) -> StageCall:
    """A verification is of one release in one Deployment, whichever pods it has."""
    return StageCall(
        stage=Stage.VERIFY,
        parents={"quantized": release.artifact, "benchmark": benchmark},
        parameters={"release": release.id, "deployment": deployment_uid},
    )


def measured_by(line: Line) -> dict[str, str]:
    """Stage -> input hash of its action entry, for the candidate that was chosen or tried last."""
    return {call.stage.value: result.input_hash for call, result in line.done}


def _request(view: View, call: StageCall, sources: Mapping[str, PinnedSource]) -> StageRequest:
    spec, parent = view.spec, view.parent
    return StageRequest(
        call=call,
        run=RunReference(namespace=parent.namespace, name=parent.name, uid=parent.uid),
        store=StoreReference(
            uri=spec.artifact.uri,
            scope=scope(parent.namespace, view.settings.cluster_name),
            connection=spec.artifact.connection,
        ),
        connections=connections_of(spec, sources.values()),
        sources=dict(sources),
        limits={"maxDuration": spec.benchmark.max_duration},
    )


def _pinned(view: View, pins: Iterable[PinStatus]) -> dict[str, PinnedSource]:
    requested = view.sources
    return {
        pin.source: requested[pin.source].model_copy(
            update={"digest": pin.digest, "revision": pin.revision}
        )
        for pin in pins
        if pin.source in requested
    }
