"""What `helm test` tells of a cluster in which something is missing."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_operator import selftest
from lora_operator.cluster import Kind
from lora_operator.selftest import ACCOUNT_ENV, GRANTED, NO_KIND, RIGHTS_ENV, findings

ACCOUNT = "lora-system/lora-operator"
LOGS = {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}
LEASE = {
    "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["lora"],
    "verbs": ["get"],
}  # fmt: skip
ROLES = GRANTED.validate_python(
    [{"namespaces": ["red", "blue"], "rules": [LOGS]}, {"namespaces": ["own"], "rules": [LEASE]}]
)


class Server:
    """An API server that denies what it is told to."""

    def __init__(self, *denied: Mapping[str, str], kinds: bool = True) -> None:
        self.asked: list[Mapping[str, str]] = []
        self._denied, self._kinds = denied, kinds

    async def serves(self, kind: Kind) -> bool:
        return self._kinds and kind.plural == "loradeployments"

    async def may(self, attributes: Mapping[str, str]) -> bool:
        self.asked.append(attributes)
        return not any(denied.items() <= attributes.items() for denied in self._denied)


async def test_where_nothing_is_missing_nothing_is_told() -> None:
    server = Server()
    assert await findings(server, ROLES, ACCOUNT) == []
    assert len(server.asked) == 9, "four rights in two namespaces, one on the Lease"
    assert server.asked[2] == {
        "namespace": "red", "group": "", "resource": "pods", "subresource": "log", "name": "",
        "verb": "get",
    }  # fmt: skip


async def test_a_missing_right_is_told_as_a_rule_with_its_place_and_its_cure() -> None:
    denied = Server({"subresource": "log", "namespace": "blue"}, {"name": "lora"})
    logs, lease, cure = await findings(denied, ROLES, ACCOUNT)
    assert logs == (
        'missing in namespace blue: {apiGroups: [""], resources: [pods/log], verbs: [get, list]}'
    )
    assert "resources: [leases], resourceNames: [lora], verbs: [get]" in lease
    assert cure.startswith(f"grant this to service account {ACCOUNT}: `helm upgrade`")


async def test_a_right_for_all_namespaces_is_told_as_such() -> None:
    everywhere = GRANTED.validate_python([{"namespaces": [""], "rules": [LOGS]}])
    first, *_ = await findings(Server({"resource": "pods"}), everywhere, ACCOUNT)
    assert first.startswith("missing in all namespaces: ")


async def test_a_kind_that_is_not_served_is_told_with_the_command() -> None:
    assert await findings(Server(kinds=False), ROLES, ACCOUNT) == [NO_KIND]


def test_without_the_rights_it_ends_with_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RIGHTS_ENV, "[{}]")
    monkeypatch.delenv(ACCOUNT_ENV, raising=False)
    with pytest.raises(SystemExit) as ended:
        selftest.main()
    assert ended.value.code == 64
    assert RIGHTS_ENV in capsys.readouterr().err


def test_an_api_server_out_of_reach_is_told_with_where_to_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "test", "user": {"token": "none"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }))  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv(RIGHTS_ENV, GRANTED.dump_json(ROLES, by_alias=True).decode())
    with pytest.raises(SystemExit) as ended:
        selftest.main()
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert told.startswith("the API server cannot be asked: ")
    assert "networkPolicy.apiServerCIDRs" in told
