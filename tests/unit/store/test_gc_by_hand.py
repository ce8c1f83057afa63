"""`lora-jobs gc` and `gc-unreleased`: they list, and remove only when told to."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_api import layout
from lora_api.jobcontract import Stage
from lora_jobs.cli import app
from lora_jobs.collecting import filed_releases
from lora_jobs.store.artifacts import has_artifact
from releasebucket import ReleaseBucket

RUN = CliRunner()


@pytest.fixture
def bucket(tmp_path: Path) -> ReleaseBucket:
    return ReleaseBucket(tmp_path)


@pytest.fixture(autouse=True)
def published(bucket: ReleaseBucket) -> list[str]:
    """Ids, oldest first."""
    return [bucket.publish("sql", adapter, 128) for adapter in range(3)]


def gc(bucket: ReleaseBucket, *options: str) -> tuple[int, str]:
    done = RUN.invoke(app, ["gc", "--store", bucket.store.uri(), "--name", "sql", *options])
    return done.exit_code, done.output


def ids(bucket: ReleaseBucket) -> list[str]:
    return [f.record.release.id for f in filed_releases(bucket.store)]


def test_it_lists_what_would_go_and_changes_nothing(bucket: ReleaseBucket) -> None:
    before = {o.key for o in bucket.store.list()}
    code, told = gc(bucket, "--keep-newest", "1", "--older-than", "0s")
    assert code == 0
    assert "2 releases" in told
    assert "nothing was changed" in told
    assert {o.key for o in bucket.store.list()} == before


def test_what_serves_is_kept_by_name_and_the_rest_is_removed(
    bucket: ReleaseBucket, published: list[str]
) -> None:
    first, _, last = published
    code, told = gc(bucket, "--keep-newest", "1", "--keep", first, "--older-than", "0s", "--remove")
    assert code == 0, told
    assert set(ids(bucket)) == {first, last}


def test_a_week_is_left_unless_told_otherwise(bucket: ReleaseBucket) -> None:
    code, told = gc(bucket, "--keep-newest", "0", "--remove")
    assert code == 0
    assert told.count("too young") == len(ids(bucket)) == 3


def test_a_name_that_has_no_release_is_a_usage_error_that_says_which_have(
    bucket: ReleaseBucket,
) -> None:
    done = RUN.invoke(
        app, ["gc", "--store", bucket.store.uri(), "--name", "slq", "--keep-newest", "1"]
    )
    assert done.exit_code != 0
    assert "sql" in done.output


def gc_unreleased(bucket: ReleaseBucket, *options: str) -> str:
    done = RUN.invoke(app, ["gc-unreleased", "--store", bucket.store.uri(), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_model_that_was_never_released_goes_and_all_that_releases_need_stays(
    bucket: ReleaseBucket,
) -> None:
    needed = {o.key for o in bucket.store.list()}
    rejected = [bucket.make(Stage.MERGE, 7).digest, bucket.make(Stage.QUANTIZE, 7, 128).digest]
    told = gc_unreleased(bucket, "--older-than", "0s")
    assert all(digest in told for digest in rejected)
    assert "2 artifacts" in told
    assert all(has_artifact(bucket.store, digest) for digest in rejected), "it was only shown"
    gc_unreleased(bucket, "--older-than", "0s", "--remove")
    assert not any(has_artifact(bucket.store, digest) for digest in rejected)
    left = {o.key for o in bucket.store.list()}
    assert needed <= left
    assert not [key for key in left - needed if key.startswith("artifacts/")]


def test_an_artifact_of_the_last_month_stays_for_a_run_may_be_about_to_use_it(
    bucket: ReleaseBucket,
) -> None:
    bucket.make(Stage.MERGE, 7)
    assert "0 artifacts" in gc_unreleased(bucket, "--remove")


def test_a_checkpoint_that_nobody_went_on_with_goes_and_a_young_one_stays(
    bucket: ReleaseBucket,
) -> None:
    folder = layout.checkpoint(Stage.QUANTIZE, "sha256:" + 64 * "7")
    before = {o.key for o in bucket.store.list()}
    for key in ("CURRENT", "objects/one", "objects/other"):
        bucket.store.write(f"{folder}/{key}", b"layer")
    assert "checkpoint" not in gc_unreleased(bucket, "--remove")
    told = gc_unreleased(bucket, "--older-than", "0s")
    assert f"{folder} goes" in told
    assert "1 checkpoints" in told
    assert before < {o.key for o in bucket.store.list()}, "it was only shown"
    gc_unreleased(bucket, "--older-than", "0s", "--remove")
    assert {o.key for o in bucket.store.list()} == before


def test_nothing_unreleased_is_removed_while_a_release_cannot_be_read(
    bucket: ReleaseBucket,
) -> None:
    bucket.make(Stage.MERGE, 7)
    bucket.store.write("releases/sql/damaged.json", b"{}")
    before = {o.key for o in bucket.store.list()}
    done = RUN.invoke(
        app, ["gc-unreleased", "--store", bucket.store.uri(), "--older-than", "0s", "--remove"]
    )
    assert done.exit_code != 0
    assert {o.key for o in bucket.store.list()} == before
