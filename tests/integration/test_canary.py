"""What a stage Job leaves holds no value of a Secret: one that works, and ones that are refused.

The servers are real or say back what they were asked with, which is the worst that one can do.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from buckets import make_bucket, write_secret
from leaks import Left, leaks, left_in_bucket
from localcluster.s3 import S3Server
from lora_api.connections import Connection
from lora_api.jobcontract import CREDENTIALS_DIR_ENV, REQUEST_ENV, RESULT_PATH_ENV, ExitCode
from resolving import RESOLVE, requests_of
from tinyfiles import write_sources

pytestmark = pytest.mark.integration
ACCESS, SECRET, WRONG, TOKEN = (
    f"canary{what}0123456789" for what in ("access", "secret", "wrong", "token")
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    with S3Server(folder, access_key=ACCESS, secret_key=SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """The endpoint of a server that refuses everything and says back what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = f"{self.path} {dict(self.headers)}"
            self.send_response(403)
            self.send_header("X-Error-Message", said)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(
                    f"<Error><Code>No</Code><Message>{said}</Message></Error>".encode()
                )

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Run:
    """`lora-jobs stage` with `resolve`, as its Job runs it."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.bucket = make_bucket(server, folder.name.replace("_", "-").lower()[:50])
        self.bucket.upload_folder(write_sources(folder / "sources"), "in")
        self.folder, self.secrets = folder, folder / "secrets"
        write_secret(self.secrets, "models", ACCESS, SECRET)
        place = f"s3://{self.bucket.name}"
        self.spec: dict[str, Any] = {
            "connections": [self.bucket.connection().to_json()],
            "baseModel": {"uri": f"{place}/in/base"},
            "adapters": [{"uri": f"{place}/in/adapter"}],
            "quantization": {
                "calibration": {"sources": [{"uri": f"{place}/in/calibration.jsonl"}]}
            },
            "evaluation": {"task": {"uri": f"{place}/in/task.jsonl"}},
            "artifact": {"uri": f"{place}/store", "connection": "models"},
        }

    def through_a_hub(self, endpoint: str) -> None:
        """Take the base from there, with a token."""
        hub = {"endpoint": endpoint, "secretRef": {"name": "hub"}}
        added = Connection.model_validate({"name": "hub", "huggingFace": hub})
        self.spec["connections"].append(added.to_json())
        self.spec["baseModel"] = {"uri": "hf://org/base", "connection": "hub"}
        (self.secrets / "hub").mkdir()
        (self.secrets / "hub/HF_TOKEN").write_text(TOKEN)

    def leaves(self) -> tuple[int, list[Left]]:
        """Exit code, and everything that it left."""
        request = requests_of(self.spec).resolve(RESOLVE, "engine:1").to_env()
        result = self.folder / "result"
        environment = os.environ | {
            REQUEST_ENV: request, RESULT_PATH_ENV: str(result),
            CREDENTIALS_DIR_ENV: str(self.secrets), "TMPDIR": str(self.folder),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "lora_jobs", "stage"], env=environment, capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip
        store = left_in_bucket(self.bucket.client, self.spec["artifact"]["uri"])
        told = [("termination message", result.read_bytes()), ("request", request.encode())]
        return done.returncode, [("log", done.stdout + done.stderr), *told, *store]


@pytest.fixture
def run(server: S3Server, tmp_path: Path) -> Run:
    return Run(server, tmp_path)


def test_a_run_that_works_leaves_no_key(run: Run) -> None:
    code, left = run.leaves()
    assert code == ExitCode.DONE
    assert any("pins/" in place for place, _ in left), "it wrote to the bucket"
    assert leaks([ACCESS, SECRET], left) == []


def test_a_refused_key_is_left_nowhere(run: Run) -> None:
    write_secret(run.secrets, "models", ACCESS, WRONG)
    code, left = run.leaves()
    assert code == ExitCode.WAITING
    assert b"AccessDenied" in dict(left)["termination message"]
    assert leaks([ACCESS, WRONG], left) == []


def test_a_store_that_says_back_what_it_was_sent_gets_no_key_into_a_message(
    run: Run, echo: str
) -> None:
    run.spec["connections"][0]["s3"]["endpoint"] = echo
    code, left = run.leaves()
    assert code == ExitCode.WAITING
    assert leaks([SECRET], left) == []


def test_a_refused_token_is_left_nowhere_though_the_hub_says_it_back(run: Run, echo: str) -> None:
    run.through_a_hub(echo)
    code, left = run.leaves()
    assert code == ExitCode.WAITING
    assert b"AccessDenied" in dict(left)["termination message"]
    assert leaks([ACCESS, SECRET, TOKEN], left) == []
