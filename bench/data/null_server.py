"""An S3 endpoint that keeps nothing: what comes is thrown away, what is asked for is a file.

It costs as little as a server can, so that the client is what is measured. It checks nothing, and
answers to its one bucket only.
"""

import http.server
import os
import socket
import sys
from pathlib import Path
from socketserver import ThreadingMixIn

CREATED = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>'
LISTED = b"<ListMultipartUploadsResult/>"


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def log_message(self, format: str, *_: object) -> None:
        """Nothing."""

    def do_PUT(self) -> None:
        """Throw a body away."""
        left = int(self.headers.get("Content-Length", 0))
        buffer = bytearray(2**20)
        while left > 0:
            left -= self.rfile.readinto(memoryview(buffer)[: min(left, len(buffer))])
        self._answer(b"", {"ETag": '"1"'})

    def do_POST(self) -> None:
        """Begin or complete an upload."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(CREATED if "uploads" in self.path else COMPLETED)

    def do_HEAD(self) -> None:
        """Size of a file."""
        size = self._file().stat().st_size
        self._head(200, size, {"ETag": '"1"'})

    def do_GET(self) -> None:
        """A range of a file, without a copy in this process."""
        if "uploads" in self.path:
            self._answer(LISTED)
            return
        file = self._file()
        first, last, status = 0, file.stat().st_size - 1, 200
        if wanted := self.headers.get("Range"):
            one, _, other = wanted.removeprefix("bytes=").partition("-")
            first, last, status = int(one), min(int(other or last), last), 206
        size = file.stat().st_size
        self._head(status, last - first + 1,
                   {"ETag": '"1"', "Content-Range": f"bytes {first}-{last}/{size}"})  # fmt: skip
        with file.open("rb") as stream:
            while first <= last:
                first += os.sendfile(
                    self.connection.fileno(), stream.fileno(), first, last - first + 1
                )

    def _file(self) -> Path:
        return self.folder / self.path.partition("?")[0].rpartition("/")[2]

    def _answer(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(200, len(body), headers or {})
        self.wfile.write(body)

    def _head(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        # Every answer of S3 about an object says when it was written.
        always = {"Content-Length": str(size), "Last-Modified": self.date_time_string()}
        for name, value in {**always, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()


class Server(ThreadingMixIn, http.server.HTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 64
    address_family = socket.AF_INET


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[1])
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
