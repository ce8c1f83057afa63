"""A policy linter reads what the chart renders; each exception has its reason."""

import json
import subprocess
from typing import Any

import pytest
import yaml

from chart import EVERYTHING, render, render_all
from localcluster import tools

Json = dict[str, Any]
ALL_GOOD = 10
EXCEPTIONS = {
    "container-resources": "a CPU limit throttles the one event loop when it is needed most",
    "container-image-pull-policy": "images are meant to be pinned by digest; Always only adds a "
    "registry to what a restart needs",
    "pod-probes-identical": "one endpoint says it all; liveness waits six times as long for it",
    "deployment-has-host-podantiaffinity": "a second replica only waits; `affinity` is a value",
}
"""With all on, by kube-score's id of the check."""
OFF_BY_DEFAULT = {
    "pod-networkpolicy": "the API server's addresses are the cluster's own; `networkPolicy.enabled`"
    " needs `apiServerCIDRs`",
}
"""More that the defaults leave out."""
WHERE_ALL_IS_ON = {"deployment-has-host-podantiaffinity"}
"""Needs the second replica."""


def complaints(documents: list[Json]) -> dict[str, list[str]]:
    """Checks that are not all good, with what kube-score says of them."""
    done = subprocess.run(
        [str(tools.ensure(tools.KUBE_SCORE) / "kube-score"), "score", "--output-format", "json",
         "--kubernetes-version", tools.KUBERNETES.rpartition(".")[0], "-"],
        input=yaml.safe_dump_all(documents), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return {
        check["check"]["id"]: [c["summary"] for c in check["comments"] or []]
        for scored in json.loads(done.stdout)
        for check in scored["checks"]
        if not check["skipped"] and check["grade"] < ALL_GOOD
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {*EXCEPTIONS, *OFF_BY_DEFAULT} - WHERE_ALL_IS_ON),
        (EVERYTHING, set(EXCEPTIONS)),
    ],
    ids=["defaults", "everything"],
)
def test_the_policy_linter_finds_only_what_has_a_reason(values: Json, expected: set[str]) -> None:
    found = complaints(render_all(values))
    assert set(found) == expected, found


def test_the_linter_sees_a_pod_that_may_do_too_much() -> None:
    found = complaints(render({"securityContext": {"readOnlyRootFilesystem": False}}))
    assert "container-security-context-readonlyrootfilesystem" in found
