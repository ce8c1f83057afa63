"""Faults seeded into the operator's own source: each must be noticed by the oracles or tests.

A mutant is one change of one line or two. `hunt` names the life and the fault under which the
laboratory must complain; `tests` the unit tests that must fail instead.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faultlab.faults import FailedReads, NoEvents
from faultlab.life import FAILED, FIRST, SWITCH, Part
from faultlab.proxy import Fault
from faultlab.writes import Point

ROOTS = ("crds", "operator", "jobs")
KINDS = ("loradeployments", "jobs", "pods", "deployments", "services")
FaultAt = Callable[[Sequence[Point]], Fault]
"""Makes the fault for the trace of the fault-free part."""


@dataclass(frozen=True)
class Mutant:
    """One wrong operator.

    Attributes:
        name: What it does wrong.
        path: The changed file.
        old: What stands there now, exactly once.
        new: What the mutant has instead.
        hunt: A part of a life, and the fault in it.
        complaint: What the laboratory must then say, among other things.
        tests: Files of unit tests.
    """

    name: str
    path: str
    old: str
    new: str
    hunt: tuple[Part, FaultAt] | None = None
    complaint: str = ""
    tests: str = ""

    def seed(self, repository: Path, folder: Path) -> str:
        """Copy the source roots with this change; returns them as PYTHONPATH.

        Raises:
            ValueError: The text to change is not there once: the mutant needs care.
        """
        for root in ROOTS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(repository / root, folder / root, ignore=ignored)
        source = folder / self.path
        text = source.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.path} has this {text.count(self.old)} times")
        source.write_text(text.replace(self.old, self.new))
        return ":".join(str(folder / root) for root in ROOTS)


def _nothing(trace: Sequence[Point]) -> Fault:
    return Fault()


_RUN, _RECONCILE = "operator/lora_operator/", "operator/lora_operator/reconcile.py"
_ROLLOUT, _EXECUTE = _RUN + "rollout.py", _RUN + "execute.py"

MUTANTS = (
    Mutant(
        "deletes by name, whatever uid it has",
        _RUN + "cluster.py",
        'body = {"preconditions": {"uid": uid}, "propagationPolicy"',
        'body = {"propagationPolicy"',
        hunt=(FIRST, _nothing),
        complaint="a deletion names the uid",
    ),
    Mutant(
        "gives every Job a new name, as generateName does",
        "crds/lora_api/naming.py",
        "digest_of([uid, stage, input_hash, attempt])",
        'digest_of([uid, stage, input_hash, attempt, str(__import__("time").time_ns())])',
        hunt=(FIRST, _nothing),
        complaint="one live Job a stage",
    ),
    Mutant(
        "takes a read that failed for an absence",
        _RUN + "cluster.py",
        "        except NotFound:\n            return None",
        "        except (NotFound, Unavailable):\n            return None",
        hunt=(SWITCH, lambda trace: FailedReads(trace[-2], "services")),
        complaint="",
    ),
    Mutant(
        "is Ready while something is wanted, not when it serves",
        _ROLLOUT,
        "serves=is_selected and up.is_verified and answers and not promotion.goes_back",
        "serves=bool(wanted)",
        hunt=(FIRST, _nothing),
        complaint="Ready only when what is asked for serves",
    ),
    Mutant(
        "switches before the candidate is Available",
        _ROLLOUT,
        "if wanted and up.is_verified and up.is_ready:",
        "if wanted:",
        hunt=(SWITCH, _nothing),
        complaint="only what is Available is selected",
    ),
    Mutant(
        "switches before the candidate is verified",
        _ROLLOUT,
        "if wanted and up.is_verified and up.is_ready:",
        "if wanted and up.is_ready:",
        hunt=(SWITCH, _nothing),
        complaint="only what was verified is selected",
    ),
    Mutant(
        "measures the speed of what has failed on quality",
        "crds/lora_api/line.py",
        "            if self.quality.failed:\n                return",
        "            if False:\n                return",
        hunt=(FAILED, _nothing),
        complaint="work was done",
    ),
    Mutant(
        "writes status over whatever version there is",
        _EXECUTE,
        '            "resourceVersion": parent.resource_version,\n',
        '            "resourceVersion": "",\n',
        hunt=(FIRST, _nothing),
        complaint="Traceback",
    ),
    Mutant(
        "tidies up what serves while the next one comes up",
        _ROLLOUT,
        "if d.release not in (run.coming, chosen, kept):",
        "if d.release != run.coming:",
        hunt=(SWITCH, _nothing),
        complaint="what serves is not deleted",
    ),
    Mutant(
        "writes the status at every look",
        _RECONCILE,
        "        if status == before:\n            return False\n",
        "",
        hunt=(FIRST, _nothing),
        complaint="nothing is written that changes nothing",
    ),
    Mutant(
        "fails when a Job that it creates is there already",
        _EXECUTE,
        "        except AlreadyExists:\n            live = await",
        "        except ZeroDivisionError:\n            live = await",
        tests="operator_shell/test_reconcile.py",
    ),
    Mutant(
        "moves transition times at every look",
        "crds/lora_api/conditions.py",
        "before.last_transition_time if before and before.status == status else now",
        "now",
        hunt=(FIRST, _nothing),
        complaint="silence",
    ),
    Mutant(
        "applies what is as intended",
        _RUN + "intent.py",
        "    return _spec_hash(live) == _spec_hash(intent) and",
        "    return bool(intent) and _spec_hash(live) != _spec_hash(intent) and",
        hunt=(FIRST, _nothing),
        complaint="nothing is written that changes nothing",
    ),
    Mutant(
        "believes that no event is ever lost",
        _RUN + "__main__.py",
        "        for key in objects:\n",
        "        for key in list(objects)[:0]:\n",
        hunt=(FIRST, lambda trace: NoEvents(KINDS)),
        complaint="never: Ready=True",
    ),
    Mutant(
        "acts on a picture whose status write was refused as stale",
        _RECONCILE,
        "            await write_status(self._cluster, parent, status)\n",
        "            try:\n"
        "                await write_status(self._cluster, parent, status)\n"
        "            except Conflict:\n"
        "                pass\n",
        tests="operator_shell/test_reconcile.py",
    ),
    Mutant(
        "acts first and tells afterwards",
        _RECONCILE,
        "        await self._tell(parent, memory, plan)\n        try:\n"
        "            await self._act(parent, plan)\n",
        "        try:\n            await self._act(parent, plan)\n"
        "            await self._tell(parent, memory, plan)\n",
        tests="operator_shell/test_reconcile.py",
    ),
    Mutant(
        "runs a vanished Job again without asking the store",
        _RUN + "working.py",
        "    if not store_was_asked:\n        return Step(entry, trouble=remembered",
        "    if False:\n        return Step(entry, trouble=remembered",
        tests="operator_planning/test_losing_things.py",
    ),
    Mutant(
        "takes everybody's objects for its own",
        _RUN + "podstate.py",
        'any(o.get("uid") == uid and o.get("controller") for o in owners)',
        "True",
        tests="operator_shell",
    ),
    Mutant(
        "forgets how often it has tried",
        _RUN + "step.py",
        "attempt=attempt if waits else entry.attempt",
        "attempt=0",
        tests="operator_planning",
    ),
    Mutant(
        "lets a gate pass that could not be judged",
        "crds/lora_api/gates.py",
        "return Verdict.ERROR if worst is Verdict.NOT_APPLICABLE else worst",
        "return Verdict.PASSED if worst in (Verdict.NOT_APPLICABLE, Verdict.ERROR) else worst",
        tests="api/test_gates.py",
    ),
    Mutant(
        "writes the manifest before the files that it names",
        "jobs/lora_jobs/store/artifacts.py",
        "    in_parallel(put, manifest.files)\n    document = manifest.to_json()\n",
        "    document = manifest.to_json()\n"
        "    create_or_adopt_json(place, MANIFEST, document)\n"
        "    in_parallel(put, manifest.files)\n",
        tests="../contract/test_store_backends.py",
    ),
)
"""The wrong operators. Most are hunted by the laboratory alone, to prove that its oracles see."""
