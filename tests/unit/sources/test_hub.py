"""Sources on a hub: a small server that answers as the Hugging Face Hub does.

The answers have the form of the hub's API (`/api/models/ORG/NAME/revision/REV?blobs=true`) and of
its `resolve` URLs, ranges included.
"""

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lora_api.connections import Connection
from lora_api.jobcontract import AUTHORITIES_DIR_ENV, CREDENTIALS_DIR_ENV, Reason
from lora_jobs.errors import Waiting
from lora_jobs.sources.compatibility import read_shapes
from lora_jobs.sources.fetching import fetch_source
from lora_jobs.sources.place import Source, open_source, pin_source
from lora_jobs.sources.selection import SourceKind
from tinycertificate import write_certificate
from tinyfiles import write_base

TOKEN = "hf_secret"
REPOSITORY = "org/base"


class Hub:
    """One private or public repository with a `main` that can move."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.main = ""
        self.private = False
        self.cut_at: dict[str, int] = {}
        """Bytes after which the next answer with a file breaks off, by name."""
        self.ranges: list[tuple[str, str]] = []
        self.commit(folder)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if certificate else "http"
        self.endpoint = f"{scheme}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit(self, folder: Path) -> str:
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        whole = b"".join(name.encode() + content for name, content in sorted(files.items()))
        self.main = hashlib.sha1(whole).hexdigest()
        self.commits[self.main] = files
        return self.main

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if self.private and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if path.startswith(f"/api/models/{REPOSITORY}"):
            revision = path.removeprefix(f"/api/models/{REPOSITORY}").removeprefix("/revision/")
            commit = self.main if revision in ("", "main") else revision
            if commit not in self.commits:
                return self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.send(request, 200, json.dumps(self.info(commit)).encode())
        start = f"/{REPOSITORY}/resolve/"
        if not path.startswith(start):
            return self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        commit, _, name = path.removeprefix(start).partition("/")
        content = self.commits[commit].get(name)
        if content is None:
            return self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
        asked = request.headers.get("Range", "bytes=0-")
        self.ranges.append((name, asked))
        wanted = asked.removeprefix("bytes=").split("-")
        first, last = int(wanted[0]), int(wanted[1] or len(content) - 1)
        body = content[first : last + 1]
        return self.send(request, 206, body, cut_at=self.cut_at.pop(name, len(body)))

    def info(self, commit: str) -> dict[str, Any]:
        siblings = []
        for name, content in self.commits[commit].items():
            entry: dict[str, Any] = {
                "rfilename": name, "size": len(content),
                "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            }  # fmt: skip
            if name.endswith(".safetensors"):
                entry["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
                    "pointerSize": 134,
                }  # fmt: skip
            siblings.append(entry)
        return {"_id": "1", "id": REPOSITORY, "modelId": REPOSITORY, "sha": commit,
                "private": self.private, "tags": [], "siblings": siblings}  # fmt: skip

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut_at: int | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[:cut_at])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv(CREDENTIALS_DIR_ENV, str(tmp_path / "secrets"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub = Hub(write_base(tmp_path / "base", hidden=8))
    yield hub
    hub.server.shutdown()


def connection(hub: Hub, secret: bool = False, ca: bool = False) -> Connection:
    kind: dict[str, Any] = {"endpoint": hub.endpoint}
    if ca:
        kind["caBundle"] = {"configMapName": "internal-ca"}
    if secret:
        kind["secretRef"] = {"name": "hf-token"}
    return Connection.model_validate({"name": "hub", "huggingFace": kind})


def base(hub: Hub, revision: str = "", secret: bool = False) -> Source:
    return open_source(f"hf://{REPOSITORY}", revision, connection(hub, secret))


def waits(source: Source) -> Waiting:
    with pytest.raises(Waiting) as caught:
        pin_source(SourceKind.BASE, source)
    assert TOKEN not in str(caught.value)
    return caught.value


def test_a_branch_is_pinned_to_its_commit_and_read_by_it_when_it_moves(
    hub: Hub, tmp_path: Path
) -> None:
    first = hub.main
    pin = pin_source(SourceKind.BASE, base(hub, "main"))
    assert pin.revision == first
    write_base(tmp_path / "base", hidden=16)
    assert hub.commit(tmp_path / "base") != first
    fetch_source(base(hub, pin.revision), pin, tmp_path / "fetched")
    for name, content in hub.commits[first].items():
        assert (tmp_path / "fetched" / name).read_bytes() == content


def test_shapes_are_read_by_range(hub: Hub) -> None:
    source = base(hub)
    shapes = read_shapes(source, pin_source(SourceKind.BASE, source))
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == (8, 8)


def test_a_download_that_was_cut_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.commit(write_base(tmp_path / "base", hidden=512))  # 4 MiB
    source = base(hub)
    pin = pin_source(SourceKind.BASE, source)
    hub.cut_at["model.safetensors"] = 5 * 2**19
    with pytest.raises(Waiting) as caught:
        fetch_source(source, pin, tmp_path / "fetched")
    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert not (tmp_path / "fetched").exists()
    hub.ranges.clear()
    fetch_source(source, pin, tmp_path / "fetched")
    assert ("model.safetensors", f"bytes={2 * 2**20}-") in hub.ranges, "to the last whole MiB"
    for name, content in hub.commits[hub.main].items():
        assert (tmp_path / "fetched" / name).read_bytes() == content


def test_what_is_there_of_another_commit_is_found_out_and_fetched_anew(
    hub: Hub, tmp_path: Path
) -> None:
    """Of a file that git holds, and the hub has no SHA-256 of."""
    source = base(hub)
    pin = pin_source(SourceKind.BASE, source)
    (tmp_path / ".incoming-fetched").mkdir()
    (tmp_path / ".incoming-fetched/config.json").write_text("{!")
    with pytest.raises(Waiting) as caught:
        fetch_source(source, pin, tmp_path / "fetched")
    assert caught.value.reason is Reason.SOURCE_CHANGED
    fetch_source(source, pin, tmp_path / "fetched")
    assert (tmp_path / "fetched/config.json").read_bytes() == (hub.commits[hub.main]["config.json"])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_the_listed_ones_are_refused(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    source = base(hub)
    pin = pin_source(SourceKind.BASE, source)
    files = hub.commits[hub.main]
    files[name] = files[name][:-1] + b"!"
    with pytest.raises(Waiting) as caught:
        fetch_source(base(hub, pin.revision), pin, tmp_path / "fetched")
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert not (tmp_path / "fetched").exists()


def test_a_private_repository_needs_the_token_of_the_secret(hub: Hub, tmp_path: Path) -> None:
    hub.private = True
    assert waits(base(hub)).reason is Reason.ACCESS_DENIED
    with pytest.raises(Waiting) as caught:
        base(hub, secret=True)
    assert caught.value.reason is Reason.CREDENTIALS_MISSING
    (tmp_path / "secrets/hub").mkdir(parents=True)
    (tmp_path / "secrets/hub/HF_TOKEN").write_text(f"{TOKEN}\n")
    source = base(hub, secret=True)
    fetch_source(source, pin_source(SourceKind.BASE, source), tmp_path / "fetched")


def test_a_missing_revision_is_not_found(hub: Hub) -> None:
    refusal = waits(base(hub, "v9"))
    assert refusal.reason is Reason.SOURCE_NOT_FOUND
    assert "at revision v9" in str(refusal)


def test_a_missing_repository_is_not_found(hub: Hub) -> None:
    refusal = waits(open_source("hf://org/absent", "", connection(hub)))
    assert refusal.reason is Reason.SOURCE_NOT_FOUND


def test_a_hub_that_does_not_answer_is_unreachable(hub: Hub) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    assert waits(base(hub)).reason is Reason.STORE_UNREACHABLE


def test_a_name_without_an_organisation_is_refused(hub: Hub) -> None:
    with pytest.raises(Waiting, match="is not hf://ORGANISATION/NAME"):
        open_source("hf://base", "", connection(hub))


def test_a_mirror_with_a_certificate_of_ones_own_is_trusted_by_its_ca_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AUTHORITIES_DIR_ENV, str(tmp_path / "authorities"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    certificate = write_certificate(tmp_path)
    hub = Hub(write_base(tmp_path / "base", hidden=8), certificate)
    refused = waits(open_source(f"hf://{REPOSITORY}", "", connection(hub)))
    assert refused.reason is Reason.STORE_UNREACHABLE
    assert "caBundle" in str(refused)
    with pytest.raises(Waiting, match='ConfigMap "internal-ca" of connection "hub" is not there'):
        open_source(f"hf://{REPOSITORY}", "", connection(hub, ca=True))
    file = tmp_path / "authorities" / "hub" / "ca.crt"
    file.parent.mkdir(parents=True)
    file.write_text("no certificate")
    with pytest.raises(Waiting, match="holds no PEM certificate") as told:
        open_source(f"hf://{REPOSITORY}", "", connection(hub, ca=True))
    assert told.value.reason is Reason.INVALID_INPUT
    file.write_bytes(certificate[0].read_bytes())
    source = open_source(f"hf://{REPOSITORY}", "", connection(hub, ca=True))
    pin = pin_source(SourceKind.BASE, source)
    fetch_source(source, pin, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "config.json").is_file()
    hub.server.shutdown()
