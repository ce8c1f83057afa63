"""Answers for a kubelet's log endpoint, so that a real API server can be asked for a pod's log."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from localcluster import pki


class StandInLogs:
    """HTTPS on a port of 127.0.0.1; keeps what it was asked.

    Attributes:
        lines: The whole log of every container; `tailLines` of it are answered.
        asked: (path, query) of each request.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name is http.server's
                place = urlsplit(self.path)
                query = parse_qs(place.query)
                outer.asked.append((place.path, query))
                tail = outer.lines[-int(query["tailLines"][0]) :]
                self.send_response(200)
                self.end_headers()
                self.wfile.write("\n".join(tail).encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        folder = pki.ensure()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "kubelet-serving.crt", folder / "kubelet-serving.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> "StandInLogs":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
