"""What the verbs change of a spec. Pure: from an object to the part that becomes another."""

from collections.abc import Mapping
from typing import Any

from lora_api.gates import Verdict
from lora_api.gatespec import GateName, Override
from lora_api.status import Status

ACCEPTABLE = (Verdict.FAILED, Verdict.INCONCLUSIVE)


class NothingToChange(Exception):
    """Why there is nothing to do; `str()` says it for people."""


def rollback_of(spec: Mapping[str, Any], found: Status, target: str) -> dict[str, Any]:
    """Pin an earlier release.

    Args:
        spec: As it is.
        found: The object's status.
        target: A release's id, or its artifact's digest or the beginning of it; empty for the
            newest release that is older than what serves.

    Raises:
        NothingToChange: There is no such release, or it is pinned already.
    """
    serves = found.serving.release if found.serving else ""
    known = {r.id: r.digest for r in found.releases}
    if target:
        digest = target if target.startswith("sha256:") else f"sha256:{target}"
        chosen = [i for i, d in known.items() if i == target or d.startswith(digest)]
    else:
        newest_first = list(known)
        chosen = newest_first[newest_first.index(serves) + 1 :][:1] if serves in known else []
    if not chosen:
        there = ", ".join(known) or "none"
        what = f"no release {target}" if target else "no earlier release"
        raise NothingToChange(f"there is {what}; there are: {there}")
    if len(chosen) > 1:
        raise NothingToChange(f"{target} is several releases: {', '.join(chosen)}; name one")
    if (spec.get("serving") or {}).get("pin") == chosen[0]:
        raise NothingToChange(f"release {chosen[0]} is pinned already")
    return {"serving": {"pin": chosen[0]}}


def unpinning_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Follow the newest release again.

    Raises:
        NothingToChange: Nothing is pinned.
    """
    if not (spec.get("serving") or {}).get("pin"):
        raise NothingToChange("no release is pinned: the newest that passed serves")
    return {"serving": {"pin": ""}}


def approval_of(
    spec: Mapping[str, Any], found: Status, gate: GateName, reason: str
) -> dict[str, Any]:
    """Accept what a gate says of the artifact that was judged last.

    Raises:
        NothingToChange: The gate has not spoken, has passed, or found no number.
    """
    judged = {g.name: g for g in found.benchmark.gates} if found.benchmark else {}
    if gate not in judged or found.artifact is None:
        raise NothingToChange(f"gate {gate} has not judged the present artifact")
    verdict = judged[gate].verdict
    if verdict is Verdict.ERROR:
        raise NothingToChange(
            f"gate {gate} is an Error, which nobody can accept: {judged[gate].message}"
        )
    if verdict not in ACCEPTABLE:
        raise NothingToChange(f"gate {gate} is {verdict}: there is nothing to accept")
    accepted = Override(digest=found.artifact.digest, gate=gate, reason=reason)
    others = [
        o for o in spec.get("overrides") or ()
        if (o["digest"], o["gate"]) != (accepted.digest, accepted.gate)
    ]  # fmt: skip
    return {"overrides": [*others, accepted.to_json()]}
