"""A strange value in each field of the spec while the model serves, and set back again.

The API server refuses it, or the operator answers and comes to rest, whatever it thinks of it; and
once it is set back all is as it was, but for the history.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from everyfield import STRANGE, fields_of, told, with_change
from faultlab.life import Outcome, Part, good_spec
from faultlab.matrix import Case
from faultlab.proxy import Fault

RunCases = Callable[[Sequence[Case]], list[Outcome]]
Json = dict[str, Any]
AS_IT_WAS = Part("as it was", "good", ("True", ""), before="good")


def every_value() -> Iterator[tuple[str, Json]]:
    """Each field with each strange value of its kind, as the whole spec, by a name."""
    document = {"spec": good_spec("good")}
    for path, kind in fields_of(document["spec"]).items():
        for value in STRANGE[kind] if len(path) > 1 else ():
            spec = with_change(document, path, value)["spec"]
            if spec != document["spec"]:
                yield told(path, value), spec


def lives(values: Sequence[tuple[str, Json]], detours: int) -> list[Case]:
    """Objects that take so many of the values one after the other, and one that takes none."""
    parts = [
        Part(f"from {values[i][0]} on", "good", ("True", ""), before="good",
             detours=dict(values[i : i + detours]))
        for i in range(0, len(values), detours)
    ]  # fmt: skip
    return [Case(part, Fault()) for part in (AS_IT_WAS, *parts)]


def without_emptied(value: Any) -> Any:
    """The API server lets an emptied list stand when an apply drops it: nobody owns its nothing."""
    if not isinstance(value, dict):
        return value
    kept = {key: without_emptied(inner) for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if inner not in ([], {})}


def present(end: Json) -> Json:
    """What is now: what serves and what is said of it. Jobs, stages and releases are history."""
    (found,) = end["loradeployments"]
    status = found["status"]
    kept = ("phase", "summary", "artifact", "serving", "benchmark", "pins", "image")
    said = {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}
    return {
        "spec": without_emptied(found["spec"]),
        "finalizers": found["finalizers"],
        "conditions": said,
        "status": {k: status[k] for k in kept if k in status},
        "deployments": [(d["name"], d["spec"]) for d in end["deployments"]],
        "services": [(s["name"], s["spec"]) for s in end["services"]],
    }


def judge(outcomes: Sequence[Outcome], reference: Outcome, subtests: pytest.Subtests) -> None:
    for outcome in outcomes:
        with subtests.test(outcome.part.name):
            assert not outcome.trouble, "\n".join([*outcome.trouble, outcome.log[-3000:]])
        for name, end in outcome.after.items():
            with subtests.test(name):
                assert present(end) == present(reference.end)
    assert any(o.refused for o in outcomes)
    assert any(o.after for o in outcomes)


@pytest.mark.fault("F29", "F30")
def test_some_strange_values_leave_no_trace_once_they_are_set_back(
    run_cases: RunCases, subtests: pytest.Subtests
) -> None:
    reference, *outcomes = run_cases(lives(list(every_value())[::60], detours=4))
    judge(outcomes, reference, subtests)


@pytest.mark.fault("F29", "F30")
@pytest.mark.exhaustive
@pytest.mark.timeout(5400)
def test_no_strange_value_leaves_a_trace_once_it_is_set_back(
    run_cases: RunCases, subtests: pytest.Subtests
) -> None:
    reference, *outcomes = run_cases(lives(list(every_value()), detours=12))
    judge(outcomes, reference, subtests)
