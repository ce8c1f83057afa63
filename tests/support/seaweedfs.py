"""SeaweedFS for tests: an S3 server of another family than versitygw, objects in volumes not files.

    with SeaweedFS(tmp_path) as s3:
        boto3.client("s3", endpoint_url=s3.endpoint, **s3.credentials())

It takes some seconds to start, so one serves a whole module.
"""

import json
import ssl
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

from localcluster.process import Process, free_ports
from localcluster.s3 import ACCESS_KEY, REGION, SECRET_KEY


class SeaweedFS:
    """One server with one account that may do everything."""

    access_key, secret_key = ACCESS_KEY, SECRET_KEY

    def __init__(self, directory: Path, tls: tuple[Path, Path] | None = None) -> None:
        """Start nothing yet.

        Args:
            directory: Of data and log; it is there.
            tls: Certificate and key, for https in place of http.
        """
        directory = directory.resolve()
        self._tls = tls
        identities = directory / "identities.json"
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        admin = {"name": "test", "credentials": [keys], "actions": ["Admin"]}
        identities.write_text(json.dumps({"identities": [admin]}))
        data = directory / "data"
        data.mkdir()
        servers = ("master", "volume", "filer", "s3")
        names = [name for server in servers for name in (f"{server}.port", f"{server}.port.grpc")]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.port = ports["s3.port"]
        secured = [f"-s3.cert.file={tls[0]}", f"-s3.key.file={tls[1]}"] if tls else []
        program = Path(sysconfig.get_path("scripts")) / "weed"
        self._process = Process(
            "seaweedfs",
            [
                program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-s3",
                f"-s3.config={identities}", "-volume.max=1000", "-master.telemetry=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0",  # else the same for every server
                *(f"-{name}={port}" for name, port in ports.items()), *secured,
            ],
            directory / "seaweedfs.log",
            env={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # volumes that a new bucket gets
        )  # fmt: skip

    @property
    def endpoint(self) -> str:
        """What a client is told."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def credentials(self) -> dict[str, str]:
        """Keyword arguments of `boto3.client`."""
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": REGION,
        }

    def __enter__(self) -> "SeaweedFS":
        self._process.start()
        try:
            self._process.wait_ready(self._is_ready, seconds=60)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def _is_ready(self) -> bool:
        trust = ssl.create_default_context(cafile=self._tls[0]) if self._tls else None
        try:
            url = f"{self.endpoint}/healthz"
            with urllib.request.urlopen(url, timeout=2, context=trust) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
