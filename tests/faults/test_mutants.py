"""Wrong operators, seeded one at a time: each must be noticed, or the tests prove nothing."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from faultlab.life import Outcome
from faultlab.matrix import complaints
from faultlab.mutants import MUTANTS, Mutant
from faultlab.proxy import Fault

pytestmark = pytest.mark.mutants
REPOSITORY = Path(__file__).parents[2]
Hunt = Callable[[Sequence[tuple[Mutant, Fault]]], list[Outcome]]


def test_the_laboratory_notices_each_mutant(
    hunt: Hunt, references: Mapping[str, Outcome], subtests: pytest.Subtests
) -> None:
    hunted = [
        (mutant, mutant.hunt[1](references[mutant.hunt[0].name].trace))
        for mutant in MUTANTS
        if mutant.hunt
    ]
    for (mutant, fault), outcome in zip(hunted, hunt(hunted), strict=True):
        found = complaints(outcome, references[outcome.part.name])
        named = next((f.splitlines()[0] for f in found if mutant.complaint in f), "")
        print(f"{mutant.name}\n    {outcome.part.name}, {fault.name}: {named[:140]}")
        with subtests.test(mutant.name):
            assert named, f"nobody noticed an operator that {mutant.name}: {found}"


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.tests], ids=lambda m: m.name)
def test_unit_tests_notice_each_mutant(mutant: Mutant, tmp_path: Path) -> None:
    path = mutant.seed(REPOSITORY, tmp_path)
    tests = (REPOSITORY / "tests/unit" / mutant.tests).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(tests)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, f"nobody noticed an operator that {mutant.name}\n{done.stdout}"
    failed = next(line for line in done.stdout.splitlines() if line.startswith("FAILED"))
    print(f"{mutant.name}\n    {failed.removeprefix('FAILED ')[:140]}")
