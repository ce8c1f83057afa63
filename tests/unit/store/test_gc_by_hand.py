"""`lora-jobs gc`: it lists, and removes only when told to."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_jobs.cli import app
from lora_jobs.collecting import filed_releases
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
