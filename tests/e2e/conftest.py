"""The testbed of the end-to-end tests: the local cluster (or CLUSTER=current) with our operator."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import tiny_model
from testbed import E2E_BUCKET, E2E_SECRET, PROFILE, Testbed

SOURCES = ("base", "adapter", "wrong-adapter", "calibration.jsonl", "task.jsonl", "general.jsonl")


@pytest.fixture(scope="session")
def testbed() -> Testbed:
    """A cluster with the operator of this checkout and the tiny model in its bucket."""
    if os.environ.get("CLUSTER") != "current" and (sys.platform != "linux" or os.geteuid() != 0):
        pytest.skip("the local cluster needs root on Linux; or set CLUSTER=current")
    with ThreadPoolExecutor() as pool:  # training and image building leave each other room
        model = pool.submit(tiny_model.ensure)
        bed = Testbed.up()
        folder = model.result().folder
    bed.install_operator({PROFILE: bed.profile()})
    for name in SOURCES:
        bed.upload(folder / name, E2E_BUCKET, name)
    return bed


@pytest.fixture(scope="session")
def story_namespace(testbed: Testbed) -> Iterator[str]:
    """One namespace, so one scope of the store, for all whose objects share their results."""
    name = "story"
    testbed.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true")
    testbed.prepare_namespace(name, E2E_SECRET)
    testbed.give_signing_key(name)
    yield name
    testbed.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespaces(testbed: Testbed) -> Iterator[Callable[[str], str]]:
    """Makes namespaces that are removed after the test."""
    made: list[str] = []

    def make(name: str) -> str:
        unique = f"{name}-{os.getpid()}"
        testbed.prepare_namespace(unique, E2E_SECRET)
        made.append(unique)
        return unique

    yield make
    for name in made:
        testbed.kubectl("delete", "namespace", name, "--wait=false")
