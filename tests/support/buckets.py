"""Fresh buckets on a real S3 server, and what a stage is told to reach them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from localcluster.s3 import S3Server
from lora_api.connections import Connection
from seaweedfs import SeaweedFS


@dataclass(frozen=True)
class Bucket:
    """A bucket that is empty at first."""

    name: str
    server: S3Server | SeaweedFS

    @property
    def client(self) -> Any:
        """A client with all rights, for setting the scene."""
        keys: dict[str, Any] = self.server.credentials()
        return boto3.client("s3", endpoint_url=self.server.endpoint, **keys)

    def upload_folder(self, folder: Path, prefix: str) -> None:
        """Every file below a folder."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.client.upload_file(
                    str(file), self.name, f"{prefix}/{file.relative_to(folder).as_posix()}"
                )

    def connection(self, name: str = "models") -> Connection:
        """How the operator would describe it."""
        return Connection.model_validate(
            {"name": name,
             "s3": {"endpoint": self.server.endpoint, "secretRef": {"name": "models-s3"}}}
        )  # fmt: skip


def make_bucket(server: S3Server | SeaweedFS, name: str) -> Bucket:
    """Create a bucket."""
    bucket = Bucket(name, server)
    bucket.client.create_bucket(Bucket=name)
    return bucket


def write_secret(folder: Path, connection: str, access_key: str, secret_key: str) -> None:
    """A Secret as the kubelet mounts it: keys are files."""
    place = folder / connection
    place.mkdir(parents=True, exist_ok=True)
    (place / "AWS_ACCESS_KEY_ID").write_text(access_key)
    (place / "AWS_SECRET_ACCESS_KEY").write_text(secret_key + os.linesep)
