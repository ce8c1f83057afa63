"""toxiproxy between a client and a server: real connections that are slow, cut or black holes."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localcluster import tools
from localcluster.console import ClusterError
from localcluster.process import Process, free_ports


class Toxiproxy:
    """One proxy in front of `upstream` (HOST:PORT)."""

    def __init__(self, directory: Path, upstream: str) -> None:
        api, self.port = free_ports(2)
        self._api = f"http://127.0.0.1:{api}"
        program = tools.ensure(tools.TOXIPROXY) / "toxiproxy-server"
        command: list[str | Path] = [program, "-host", "127.0.0.1", "-port", str(api)]
        self._process = Process("toxiproxy", command, directory / "toxiproxy.log")
        self._upstream = upstream

    @property
    def endpoint(self) -> str:
        """What the client is told."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Toxiproxy":
        self._process.start()
        try:
            self._process.wait_ready(self._answers, seconds=20)
            place = {"listen": f"127.0.0.1:{self.port}", "upstream": self._upstream}
            self._ask("POST", "/proxies", {"name": "s3", "enabled": True, **place})
        except (ClusterError, OSError):
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    @contextmanager
    def fault(self, kind: str, stream: str = "downstream", **attributes: int) -> Iterator[None]:
        """A toxic (`bandwidth`, `timeout`, `reset_peer`, `limit_data`, ...) until the block ends.

        It takes hold of new connections; `attributes` are toxiproxy's, in its units.
        """
        toxic = {"name": "now", "type": kind, "stream": stream, "attributes": attributes}
        self._ask("POST", "/proxies/s3/toxics", toxic)
        try:
            yield
        finally:
            self.heal()

    def heal(self) -> None:
        """Without fault again; twice is once."""
        self._ask("POST", "/reset", {})

    def _answers(self) -> bool:
        try:
            self._ask("GET", "/version", None)
            return True
        except OSError:
            return False

    def _ask(self, method: str, path: str, document: Any) -> None:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self._api + path, data, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()
