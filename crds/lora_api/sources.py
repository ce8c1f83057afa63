"""The sources of a spec as a stage program is told of them, and the connections they need.

The operator and the local run both ask `resolve` with these, so that equal specs have equal pins.
"""

from collections.abc import Iterable

from lora_api.connections import Connection
from lora_api.jobcontract import PinnedSource
from lora_api.layout import pin_key
from lora_api.spec import Source, Spec


def requested_sources(spec: Spec) -> dict[str, PinnedSource]:
    """Every source by its name in `StageCall.parents`, not yet pinned."""
    sources: dict[str, Source] = {"base": spec.base_model}
    sources |= {f"adapter{i}": a.as_source() for i, a in enumerate(spec.adapters)}
    calibration = spec.quantization.calibration_sources
    sources |= {f"calibration{i}": s.as_source() for i, s in enumerate(calibration)}
    sources["task"] = spec.evaluation.task
    if spec.evaluation.general:
        sources["general"] = spec.evaluation.general
    return {name: _requested(spec, source) for name, source in sources.items()}


def connections_of(spec: Spec, sources: Iterable[PinnedSource]) -> list[Connection]:
    """The connections that these sources and the store use; an undefined name is left out."""
    names = {s.connection for s in sources} | {spec.artifact.connection}
    return [c for c in spec.connections or [] if c.name in names]


def place(spec: Spec, uri: str, connection: str) -> tuple[str, str]:
    """Kind and endpoint by which a URI is reached, without a connection's name or credentials."""
    found = spec.connection(connection)
    if found and found.s3:
        return "s3", found.s3.endpoint
    if found and found.hugging_face:
        return "hf", found.hugging_face.endpoint
    return uri.partition("://")[0], ""


def _requested(spec: Spec, source: Source) -> PinnedSource:
    connection = source.connection
    if not connection and source.uri.startswith("s3://"):
        connection = spec.artifact.connection
    kind, endpoint = place(spec, source.uri, connection)
    return PinnedSource(
        uri=source.uri,
        revision=source.revision,
        connection=connection,
        key=pin_key(kind, endpoint, source.uri, source.revision, spec.refresh),
    )
