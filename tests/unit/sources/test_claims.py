"""Sources on a mounted PersistentVolumeClaim: `pvc://CLAIM/PATH`."""

from pathlib import Path

import pytest

from lora_api.jobcontract import CLAIMS_DIR_ENV, Reason
from lora_api.sourcespec import claim_of
from lora_jobs.connections import LOCAL_RUN_ENV
from lora_jobs.errors import Waiting
from lora_jobs.sources.fetching import check_unchanged, fetch_source
from lora_jobs.sources.place import open_source, pin_source
from lora_jobs.sources.selection import SourceKind
from tinyfiles import write_base

URI = "pvc://models/base"


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CLAIMS_DIR_ENV, str(tmp_path))
    claim = tmp_path / "models"
    write_base(claim / "base", hidden=8)
    return claim


@pytest.mark.parametrize(
    ("uri", "claim"),
    [("pvc://models/a/b", "models"), ("pvc://models", "models"), ("pvc://a.b-c/x", "a.b-c"),
     ("pvc:///x", ""), ("pvc://../x", ""), ("pvc://Models/x", ""), ("s3://models/x", "")],
)  # fmt: skip
def test_the_claim_is_the_first_part(uri: str, claim: str) -> None:
    assert claim_of(uri) == claim


def test_a_model_is_pinned_by_content_and_fetched_as_it_is(claim: Path, tmp_path: Path) -> None:
    source = open_source(URI, "", None)
    pin = pin_source(SourceKind.BASE, source)
    assert all(len(f.sha256) == 64 for f in pin.files)
    fetch_source(source, pin, tmp_path / "fetched")
    for file in pin.files:
        assert (tmp_path / "fetched" / file.path).read_bytes() == (
            claim / "base" / file.path
        ).read_bytes()
    check_unchanged(source, pin)
    (claim / "base" / "config.json").write_text("{}")
    with pytest.raises(Waiting, match=r"config\.json of pvc://models/base is no longer"):
        check_unchanged(source, pin)


def test_one_file_can_be_named(claim: Path) -> None:
    (claim / "task.jsonl").write_text('{"text": "words"}\n')
    pin = pin_source(SourceKind.DATA, open_source("pvc://models/task.jsonl", "", None))
    assert [f.path for f in pin.files] == ["task.jsonl"]


def test_links_are_followed_within_the_claim_as_in_a_cache_of_the_hub(claim: Path) -> None:
    snapshot, blobs = claim / "snapshots" / "c1", claim / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in (claim / "base").iterdir():
        (blobs / file.name).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    linked = pin_source(SourceKind.BASE, open_source("pvc://models/snapshots/c1", "", None))
    assert linked.digest == pin_source(SourceKind.BASE, open_source(URI, "", None)).digest


@pytest.mark.parametrize("what", ["file", "folder", "parent"])
def test_a_link_out_of_the_claim_is_refused_and_nothing_behind_it_is_read(
    claim: Path, tmp_path: Path, what: str
) -> None:
    secret = tmp_path / "secrets"
    write_base(secret, hidden=8)
    if what == "file":
        (claim / "base" / "config.json").unlink()
        (claim / "base" / "config.json").symlink_to(secret / "config.json")
    if what == "folder":
        (claim / "linked").symlink_to(secret)
    uri = {"file": URI, "folder": "pvc://models/linked", "parent": "pvc://models/../secrets"}[what]
    with pytest.raises((Waiting, ValueError)) as refused:
        pin_source(SourceKind.BASE, open_source(uri, "", None))
    if isinstance(refused.value, Waiting):
        assert refused.value.reason is Reason.ACCESS_DENIED
        assert "leads out of the claim" in str(refused.value)


def test_where_no_claim_is_mounted_it_says_what_to_do(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Waiting, match="only Jobs of the operator have claims mounted"):
        open_source("pvc://others/base", "", None)
    with pytest.raises(Waiting, match="is not pvc://CLAIM/PATH"):
        open_source("pvc://Bad_Name/base", "", None)
    monkeypatch.setenv(LOCAL_RUN_ENV, "1")
    with pytest.raises(Waiting, match="use file:///PATH"):
        open_source("pvc://others/base", "", None)
