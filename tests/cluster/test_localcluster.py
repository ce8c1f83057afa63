"""The parts of the local cluster that need neither root nor a build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import cli, containerd, dockerfile, host, node, process
from localcluster.console import ClusterError

TEXT = """# a comment
ARG BASE_IMAGE=debian
FROM ${BASE_IMAGE} AS wheel
COPY pyproject.toml \\
     src /src/
FROM ${BASE_IMAGE} AS operator
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \\
    --mount=type=bind,source=locks,target=/locks --mount=type=cache,target=/c true
FROM operator AS jobs
COPY --from=wheel /dist /dist
COPY ["other file", "/other"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in (
        "Dockerfile",
        "pyproject.toml",
        "src/a.py",
        "locks/one",
        "other file",
        "unrelated",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "Dockerfile").write_text(TEXT)
    return tmp_path


def digest(context: Path, target: str) -> str:
    return dockerfile.content_hash(context / "Dockerfile", context, target, {})


def test_stages_know_what_goes_into_them() -> None:
    before, stages = dockerfile.parse(TEXT)
    assert before == ["ARG BASE_IMAGE=debian"]
    assert [stage.name for stage in stages] == ["wheel", "operator", "jobs"]
    assert [stage.sources for stage in stages] == [
        ["pyproject.toml", "src"],
        ["locks"],
        ["other file"],
    ]
    assert "wheel" in stages[1].needs
    assert {"operator", "wheel"} <= stages[2].needs


@pytest.mark.parametrize(
    ("changed", "operator", "jobs"),
    [
        ("src/a.py", True, True),
        ("locks/one", True, True),
        ("other file", False, True),
        ("unrelated", False, False),
        ("src/__pycache__/a.pyc", False, False),
    ],
)
def test_only_what_goes_in_changes_the_hash(
    context: Path, changed: str, operator: bool, jobs: bool
) -> None:
    before = digest(context, "operator"), digest(context, "jobs")
    (context / changed).parent.mkdir(exist_ok=True)
    (context / changed).write_text("changed")
    assert (digest(context, "operator") != before[0]) == operator
    assert (digest(context, "jobs") != before[1]) == jobs


def test_unknown_target_names_the_stages(context: Path) -> None:
    with pytest.raises(ClusterError, match="it has: wheel, operator, jobs"):
        digest(context, "gpu")


def test_missing_source_is_named(context: Path) -> None:
    (context / "pyproject.toml").unlink()
    with pytest.raises(ClusterError, match=r"pyproject\.toml"):
        digest(context, "jobs")


@pytest.mark.parametrize(
    ("mounts", "folder"),
    [
        ("mount -t bind /s/1/fs /x -o rw,rbind", "/s/1/fs"),
        ("mount -t overlay overlay /x -o workdir=/s/2/work,upperdir=/s/2/fs,lowerdir=/s/1/fs",
         "/s/2/fs"),
    ],
)  # fmt: skip
def test_snapshot_folder_is_read_from_mounts(mounts: str, folder: str) -> None:
    assert containerd._upper(mounts) == Path(folder)


def test_process_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such flag'); sys.exit(3)"]
    ended = process.Process("server", command, tmp_path / "log")
    ended.start()
    with pytest.raises(ClusterError, match=r"ended \(exit 3\):\n  no such flag"):
        ended.wait_ready(lambda: False, seconds=20)


def test_killed_process_starts_again(tmp_path: Path) -> None:
    server = process.Process("server", ["sleep", "100"], tmp_path / "log")
    server.start()
    first = server.pid
    server.kill()
    server.start()
    assert server.pid != first
    server.stop()


def test_free_ports_differ() -> None:
    assert len(set(process.free_ports(20))) == 20


def test_a_port_is_given_to_one_process_also_while_nothing_listens_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = range(14900, 14920)
    monkeypatch.setattr(process, "SERVER_PORTS", few)
    ours = process.free_ports(8)
    ask = (
        "from localcluster import process; "
        f"process.SERVER_PORTS = {few!r}; print(*process.free_ports(20))"
    )
    root = Path(process.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=root
    )
    theirs = {int(port) for port in done.stdout.split()}
    assert theirs
    assert not theirs & set(ours)
    assert not set(process.free_ports(20)) & set(ours), "nor to us a second time"


def test_a_pid_taken_by_another_process_is_not_ours() -> None:
    assert not host.Init(pid=1, started="1", cache="").alive()


def test_without_root_the_alternatives_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["up"]) == 1
    assert "CLUSTER=current" in capsys.readouterr().err


def test_cluster_of_another_cache_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    me = host.Init(1, host.start_time(1), "/elsewhere/lora-operator")
    monkeypatch.setattr(host.Init, "load", lambda: me)
    with pytest.raises(ClusterError, match="XDG_CACHE_HOME=/elsewhere"):
        node.running()
