"""One client's work against the null server: `transfers.py WHAT FOLDER OUTPUT`."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from lora_api.connections import S3Connection
from lora_jobs.parallel import in_parallel
from lora_jobs.store.hashing import PART_BYTES, file_hash
from lora_jobs.store.s3 import S3Store, open_s3

BUCKET = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}


def main(what: str, folder: Path, output: Path) -> None:
    """Move every safetensors file once."""
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    output.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("null_server.py"), folder],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        store = open_s3(BUCKET, "p", S3Connection(endpoint=endpoint), KEYS)
        if what == "upload":
            in_parallel(lambda name: _upload(store, folder / name), names)
        elif what == "download":
            in_parallel(lambda name: store.download(name, output / name), names)
        else:
            _with_boto3(what, endpoint, folder, output, names)
    finally:
        server.kill()
    os._exit(0)  # unreaped: the server's time is not the client's


def _upload(store: S3Store, file: Path) -> None:
    """With digests as the merge hands them over; the null server compares none."""
    size = file.stat().st_size
    known = file_hash(size, "0" * 64, ("AAAAAA==",) * -(-size // PART_BYTES))
    store.upload(file.name, file, known=known)


def _with_boto3(what: str, endpoint: str, folder: Path, output: Path, names: list[str]) -> None:
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=32),
    )  # fmt: skip
    tuned = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES,
                           max_concurrency=8)  # fmt: skip
    config = tuned if what == "download-tuned" else TransferConfig()
    for name in names:
        if what == "upload-boto3":
            client.upload_file(str(folder / name), BUCKET, f"p/{name}", Config=config)
        else:
            client.download_file(BUCKET, f"p/{name}", str(output / name), Config=config)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
