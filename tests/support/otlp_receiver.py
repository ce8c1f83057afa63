"""A receiver of traces, by OTLP over HTTP, on loopback: what arrived, decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

ERROR = Status.STATUS_CODE_ERROR


class Receiver:
    """Takes spans at `endpoint` while it is served.

    Attributes:
        answer: HTTP status that posts are answered with; only 200 takes their spans.
        resources: Attributes of the resources that have sent anything.
    """

    def __init__(self, port: int = 0) -> None:
        self.answer = 200
        self.spans: list[Span] = []
        self.resources: list[dict[str, str | int | bool]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken = receiver.answer == 200 and self.path == "/v1/traces"
                if taken:
                    receiver.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(receiver.answer if self.path == "/v1/traces" else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def served(self) -> Iterator["Receiver"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for of_resource in request.resource_spans:
            self.resources.append(read(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans

    def names(self) -> list[str]:
        """Of all spans, in the order of their arrival."""
        return [s.name for s in self.spans]

    def span(self, name: str) -> Span:
        """The only span of that name."""
        [found] = [s for s in self.spans if s.name == name]
        return found


def read(attributes: object) -> dict[str, str | int | bool]:
    """Attributes as a mapping."""
    found: dict[str, str | int | bool] = {}
    for attribute in attributes:  # type: ignore[attr-defined]
        kind = attribute.value.WhichOneof("value")
        found[attribute.key] = getattr(attribute.value, kind)
    return found
