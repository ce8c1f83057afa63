"""A real API server of its own: the laboratory leaves thousands of objects in it."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from api_server import api_server
from faultlab.life import PARTS, Laboratory, Outcome
from faultlab.matrix import Case
from faultlab.mutants import Mutant
from faultlab.processes import Zygote
from faultlab.proxy import Fault

REPOSITORY = Path(__file__).parents[2]
PYTHON_PATH = ":".join(str(REPOSITORY / root) for root in ("crds", "operator", "jobs"))
RunCases = Callable[[Sequence[Case]], list[Outcome]]


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Laboratory]]:
    """Makes a laboratory, to be opened on an event loop; all share one API server."""
    folder = tmp_path_factory.mktemp("faults")
    os.environ.setdefault("GOGC", "400")  # these servers may have memory for speed
    with api_server(folder / "control-plane") as plane:
        yield lambda: Laboratory(plane.server, folder, PYTHON_PATH)


@pytest.fixture(scope="session")
def run_cases(laboratory: Callable[[], Laboratory]) -> RunCases:
    """Runs cases side by side; each has a namespace, a proxy and an operator of its own."""

    async def all_of(cases: Sequence[Case]) -> list[Outcome]:
        async with laboratory().open() as lab:
            return await asyncio.gather(*(lab.live(c.part, c.fault) for c in cases))

    return lambda cases: asyncio.run(all_of(cases))


@pytest.fixture(scope="session")
def hunt(
    laboratory: Callable[[], Laboratory], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[tuple[Mutant, Fault]]], list[Outcome]]:
    """Runs mutants side by side, each in the part of a life in which it is hunted."""

    async def live(lab: Laboratory, mutant: Mutant, fault: Fault) -> Outcome:
        assert mutant.hunt is not None
        path = mutant.seed(REPOSITORY, tmp_path_factory.mktemp("mutant"))
        async with Zygote(path) as zygote:
            return await lab.live(mutant.hunt[0], fault, zygote)

    async def all_of(hunted: Sequence[tuple[Mutant, Fault]]) -> list[Outcome]:
        async with laboratory().open() as lab:
            lab.patience_seconds = 40.0
            return await asyncio.gather(*(live(lab, *one) for one in hunted))

    return lambda hunted: asyncio.run(all_of(hunted))


@pytest.fixture(scope="session")
def references(run_cases: RunCases) -> dict[str, Outcome]:
    """Each part of a life without any fault, by its name."""
    outcomes = run_cases([Case(part, Fault()) for part in PARTS])
    for outcome in outcomes:
        assert not outcome.trouble, f"{outcome.name}, so nothing can be compared: {outcome.trouble}"
    return {outcome.part.name: outcome for outcome in outcomes}
