"""`python -m lora_operator.selftest`: what `helm test` runs, as the operator's own account.

Asks the API server whether our kind is served and whether each right of the chart's roles is
granted, and says in plain words what is missing. The rights come from the roles themselves.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import Field, TypeAdapter, ValidationError

from lora_api import API_VERSION, PLURAL
from lora_api.base import ApiModel
from lora_operator.cluster import LORA_DEPLOYMENTS, Denied, Kind, NotFound, Unavailable, connect

RIGHTS_ENV = "LORA_OPERATOR_RIGHTS"
ACCOUNT_ENV = "LORA_OPERATOR_ACCOUNT"
NO_KIND = (
    f"the API server does not serve {PLURAL} of {API_VERSION}; install the chart with "
    "crds.enabled=true, or run: kubectl apply --server-side -f crds/loradeployments.yaml"
)


class Rule(ApiModel):
    """One rule of a Role, as RBAC has it."""

    api_groups: list[str]
    resources: list[str]
    verbs: list[str]
    resource_names: list[str] = Field(default_factory=list)


class Granted(ApiModel):
    """What one role grants, and where; the empty namespace is all of them."""

    namespaces: list[str]
    rules: list[Rule]


GRANTED = TypeAdapter(list[Granted])


@dataclass(frozen=True)
class Right:
    """One verb on one resource (`pods/log` is one); an empty name is every object."""

    namespace: str
    group: str
    resource: str
    name: str
    verb: str

    @property
    def of(self) -> "Right":
        """What it is a right on: the same for all verbs."""
        return replace(self, verb="")

    @property
    def attributes(self) -> dict[str, str]:
        """As an access review asks for it."""
        resource, _, part = self.resource.partition("/")
        return {
            "namespace": self.namespace, "group": self.group, "resource": resource,
            "subresource": part, "name": self.name, "verb": self.verb,
        }  # fmt: skip


class Asked(Protocol):
    """What is asked of the API server; both may raise `Denied` and `Unavailable`."""

    async def serves(self, kind: Kind) -> bool:
        """Whether it knows the kind."""
        ...

    async def may(self, attributes: Mapping[str, str]) -> bool:
        """Whether we may do this."""
        ...


def rights_of(granted: Sequence[Granted]) -> list[Right]:
    """Each right on its own, in the order of the rules."""
    return [
        Right(namespace, group, resource, name, verb)
        for role in granted
        for namespace in role.namespaces
        for rule in role.rules
        for group in rule.api_groups
        for resource in rule.resources
        for name in rule.resource_names or [""]
        for verb in rule.verbs
    ]


def told(missing: Sequence[Right], account: str) -> list[str]:
    """What is missing, as rules that can be pasted into a role, and what to do about it."""
    lines: list[str] = []
    for of, rights in itertools.groupby(missing, lambda right: right.of):
        where = f"in namespace {of.namespace}" if of.namespace else "in all namespaces"
        named = f"resourceNames: [{of.name}], " if of.name else ""
        verbs = ", ".join(right.verb for right in rights)
        rule = f'apiGroups: ["{of.group}"], resources: [{of.resource}], {named}verbs: [{verbs}]'
        lines.append(f"missing {where}: {{{rule}}}")
    cure = (
        f"grant this to service account {account}: `helm upgrade` with rbac.create=true does it; "
        "else add these rules to the role that you bind to it"
    )
    return [*lines, cure]


async def findings(cluster: Asked, granted: Sequence[Granted], account: str) -> list[str]:
    """All that keeps the operator from its work, one sentence a line; empty when nothing does.

    Raises:
        Denied, Unavailable: The API server cannot be asked.
    """
    served = await cluster.serves(LORA_DEPLOYMENTS)
    rights = rights_of(granted)
    answers = [await cluster.may(right.attributes) for right in rights]
    missing = [right for right, yes in zip(rights, answers, strict=True) if not yes]
    return ([] if served else [NO_KIND]) + (told(missing, account) if missing else [])


async def _run(granted: Sequence[Granted], account: str) -> int:
    try:
        async with connect() as cluster:
            found = await findings(cluster, granted, account)
    except (Denied, NotFound, Unavailable) as error:
        found = [
            f"the API server cannot be asked: {error}; look at networkPolicy.apiServerCIDRs and "
            "apiServerPorts, and at policies of the namespace"
        ]
    places = dict.fromkeys(n or "all namespaces" for role in granted for n in role.namespaces)
    good = (
        f"{PLURAL} are served, and service account {account} has each of the "
        f"{len(rights_of(granted))} rights that it needs, in {', '.join(places)}"
    )
    print("\n".join(found) or good, flush=True)
    return 1 if found else 0


def main() -> None:
    """Exits with 0 when nothing is missing, 1 when something is, 64 on a wrong environment."""
    try:
        granted = GRANTED.validate_json(os.environ.get(RIGHTS_ENV, ""))
    except ValidationError:
        print(
            f"set {RIGHTS_ENV} to the roles' rules, as the chart's test pod does", file=sys.stderr
        )
        sys.exit(64)
    sys.exit(asyncio.run(_run(granted, os.environ.get(ACCOUNT_ENV, "of this pod"))))


if __name__ == "__main__":
    main()
