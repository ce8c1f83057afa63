"""A real S3 server (versitygw) for tests: on 127.0.0.1, no root, ready in under a second.

    with S3Server(tmp_path) as s3:
        boto3.client("s3", endpoint_url=s3.endpoint, **s3.credentials())

Traps: it stores objects as files, so keys `x` and `x/y` cannot both exist (409), and it needs a
file system with user extended attributes (ext4, xfs, newer tmpfs). All paths given to it must be
absolute: it changes its directory.
"""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from types import TracebackType

from localcluster import components, tools
from localcluster.console import ClusterError
from localcluster.process import Process, free_ports

ACCESS_KEY = "testaccess"
SECRET_KEY = "testsecret123"
REGION = "us-east-1"


class S3Server:
    """One server with one root account. `max_requests` gives real `503 SlowDown` answers."""

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        *,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        tls: tuple[Path, Path] | None = None,
        max_requests: int | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.port = port
        self.access_key, self.secret_key = access_key, secret_key
        self._tls = tls
        self._max_requests = max_requests
        self._process: Process | None = None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        """For fault tests: `kill()` and `start()` keep port and data."""
        if self._process is None:
            raise ClusterError("the S3 server is not started: use `with S3Server(...)`")
        return self._process

    def credentials(self) -> dict[str, str]:
        """Keyword arguments of `boto3.client`."""
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": REGION,
        }

    def start(self) -> None:
        """Starts the server; with port 0 another free port is tried when one was just taken."""
        chosen, tries = self.port, 3 if self.port == 0 else 1
        for attempt in range(tries):
            self.port = chosen or free_ports(1)[0]
            self._process = process = self._make()
            process.start()
            try:
                process.wait_ready(self.healthy, seconds=20)
                return
            except ClusterError:
                self.stop()
                if attempt + 1 == tries:
                    raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def healthy(self) -> bool:
        return healthy("127.0.0.1", self.port, tls=self._tls is not None)

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _make(self) -> Process:
        data, iam = self.directory / "data", self.directory / "iam"
        for folder in (data, iam):
            folder.mkdir(parents=True, exist_ok=True)
        options: list[str] = []
        if self._tls is not None:
            certificate, key = (str(path.resolve()) for path in self._tls)
            options += ["--cert", certificate, "--key", key]
        if self._max_requests is not None:
            options += ["--max-requests", str(self._max_requests)]
        program = tools.ensure(tools.S3) / "versitygw"
        command = components.versitygw(data, iam, f"127.0.0.1:{self.port}")
        return Process(
            "versitygw",
            [program, *options, *command],
            self.directory / "log" / "versitygw.log",
            env=root_account(self.access_key, self.secret_key),
        )


def root_account(access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
    """The environment that gives versitygw its root account (not visible in `ps`)."""
    return {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}


def healthy(host: str, port: int, *, tls: bool = False) -> bool:
    """Whether the server answers its health path. The certificate is not judged here."""
    link: http.client.HTTPConnection
    if tls:
        unverified = ssl._create_unverified_context()
        link = http.client.HTTPSConnection(host, port, timeout=2, context=unverified)
    else:
        link = http.client.HTTPConnection(host, port, timeout=2)
    try:
        link.request("GET", "/healthz")
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()
