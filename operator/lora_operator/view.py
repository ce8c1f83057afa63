"""What every decision looks at: the observed world, the parsed spec and what status remembers.

Status remembers what its stages found. A fresh start (the spec or the retry annotation changed)
is made here, before anything is decided: what had failed is due at once, so that no decision has
to ask for the cause of its retry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from lora_api.conditions import ConditionType
from lora_api.jobcontract import (
    PinnedSource,
    Reason,
    RunReference,
    Stage,
    StageResult,
    StoreReference,
)
from lora_api.layout import scope
from lora_api.naming import ANNOTATION_RETRY
from lora_api.requests import StageRequests
from lora_api.sources import requested_sources
from lora_api.spec import Spec
from lora_api.status import ProfileStatus, StageState, StageStatus, Status
from lora_api.times import epoch_seconds, rfc3339
from lora_operator.observed import Observed, ObservedJob, ObservedObject
from lora_operator.settings import Settings

RUNNING_LOOK_SECONDS = 5.0
"""While a Job or a candidate comes up: progress and hold-ups are looked at this often."""
SOON_SECONDS = 1.0
"""After an action whose effect decides the next step."""


@dataclass(frozen=True)
class View:
    """One look at one object."""

    observed: Observed
    settings: Settings
    spec: Spec
    before: Status
    now: float

    @property
    def parent(self) -> ObservedObject:
        """The LoRADeployment."""
        return self.observed.parent

    @property
    def time(self) -> str:
        """Now, as status writes it."""
        return rfc3339(self.now)

    @property
    def retry(self) -> bool:
        """Whether the user asks to try again."""
        return retry_requested(self.parent, self.before)

    @property
    def starts_afresh(self) -> bool:
        """Whether what failed is to be tried again at once: spec or profile changed, or a retry."""
        return (
            self.retry
            or _spec_changed(self.parent, self.before)
            or _profile_changed(self.profile, self.before)
        )

    @cached_property
    def profile(self) -> ProfileStatus | None:
        """The profile that the spec was completed with."""
        name = self.spec.profile
        if not name:
            return None
        return ProfileStatus(name=name, digest=self.settings.profiles[name].digest)

    @cached_property
    def sources(self) -> Mapping[str, PinnedSource]:
        """The spec's sources, not yet pinned."""
        return requested_sources(self.spec)

    @cached_property
    def requests(self) -> StageRequests:
        """What the stage programs of this object are asked."""
        parent, place = self.parent, self.spec.artifact
        return StageRequests(
            spec=self.spec,
            run=RunReference(namespace=parent.namespace, name=parent.name, uid=parent.uid),
            store=StoreReference(
                uri=place.uri,
                scope=scope(parent.namespace, self.settings.cluster_name),
                connection=place.connection,
            ),
        )

    @cached_property
    def entries(self) -> tuple[StageStatus, ...]:
        """What status remembers of the stages, ready for a fresh start if this is one."""
        if not self.starts_afresh:
            return tuple(self.before.stages)
        return tuple(self._afresh(e) for e in self.before.stages)

    @cached_property
    def results(self) -> Mapping[str, StageResult]:
        """Known results of working stages by input hash: of status, and of complete Jobs."""
        jobs = {
            j.input_hash: result for j in self.observed.jobs if j.ours and (result := result_of(j))
        }
        remembered = {
            e.input_hash: _result_of_entry(e)
            for e in self.entries
            if e.state is StageState.SUCCEEDED and e.name in _STAGES
        }
        return jobs | remembered

    def entry(self, stage: Stage, input_hash: str) -> StageStatus | None:
        """What status remembers of this piece of work."""
        return next(
            (e for e in self.entries if e.name == stage and e.input_hash == input_hash), None
        )

    def job(self, name: str) -> ObservedJob | None:
        """The observed Job of that name."""
        return next((j for j in self.observed.jobs if j.name == name), None)

    def jobs_of(self, stage: Stage, input_hash: str) -> list[ObservedJob]:
        """Our Jobs for this piece of work, those being deleted left out."""
        return [
            j
            for j in self.observed.jobs
            if j.ours and not j.deleting and j.stage == stage and j.input_hash == input_hash
        ]

    @property
    def is_collecting(self) -> bool:
        """Whether releases are being removed: no other may be taken up meanwhile."""
        return any(
            j.ours and j.stage == Stage.COLLECT and not (j.complete or j.failed)
            for j in self.observed.jobs
        )

    def is_due(self, entry: StageStatus) -> bool:
        """Whether a back-off is over; a clock that jumped back never prolongs one."""
        at = epoch_seconds(entry.next_try_at) or 0.0
        return not self.now < at <= self.now + self.settings.backoff_max_seconds + 1

    def wait_of(self, entry: StageStatus) -> float | None:
        """Seconds until a stage that backs off is due."""
        at = epoch_seconds(entry.next_try_at)
        return None if at is None else max(at - self.now, SOON_SECONDS)

    def _afresh(self, entry: StageStatus) -> StageStatus:
        """A failed stage as due now. A refused model stays refused until the user asks again."""
        failed = entry.state is StageState.FAILED or is_backing_off(entry)
        refused = entry.reason == Reason.VERIFICATION_FAILED and not self.retry
        if not failed or refused:
            return entry
        return entry.model_copy(
            update={
                "state": StageState.WAITING,
                "attempt": 0,
                "next_try_at": self.time,
                "started_at": "",
                "reason": "",
                "message": "",
            }
        )


_STAGES = frozenset(s.value for s in Stage)


def retry_requested(parent: ObservedObject, before: Status) -> bool:
    """Whether the retry annotation holds a value that was not handled yet.

    Not with a wiped status, which has forgotten what was handled: nothing may run again for that.
    """
    value = retry_token(parent)
    return bool(value and before.conditions) and value != before.last_handled_retry


def retry_token(parent: ObservedObject) -> str:
    """The retry annotation's value as status holds it."""
    return parent.annotations.get(ANNOTATION_RETRY, "")[:128]


def _spec_changed(parent: ObservedObject, before: Status) -> bool:
    """Whether the last plan was made for another generation; a wiped status cannot tell."""
    seen = [c.observed_generation for c in before.conditions if c.type == ConditionType.RECONCILING]
    return bool(seen) and seen[0] != parent.generation


def _profile_changed(profile: ProfileStatus | None, before: Status) -> bool:
    """Whether the last plan was made with other content; a wiped status cannot tell."""
    return before.profile is not None and before.profile != profile


def status_of(raw: Mapping[str, Any]) -> Status:
    """The observed status; one that cannot be read is as good as wiped, for it is a cache."""
    try:
        return Status.model_validate(dict(raw))
    except ValidationError:
        return Status()


def is_backing_off(entry: StageStatus) -> bool:
    """Whether the stage failed and waits for its next try, unlike a Job that is held up."""
    return entry.state is StageState.WAITING and bool(entry.next_try_at)


def result_of(job: ObservedJob) -> StageResult | None:
    """The result of a complete Job, if it is readable and of this very work."""
    outcome = job.outcome
    if not job.complete or not isinstance(outcome, StageResult):
        return None
    is_its_own = outcome.stage == job.stage and outcome.input_hash == job.input_hash
    return outcome if is_its_own else None


def soonest(waits: Iterable[float | None]) -> float | None:
    """The shortest of the waits that are set."""
    return min((w for w in waits if w is not None), default=None)


def _result_of_entry(entry: StageStatus) -> StageResult:
    return StageResult(
        stage=Stage(entry.name),
        input_hash=entry.input_hash,
        digest=entry.digest,
        measurements=entry.measurements or {},
        accelerator_seconds=entry.accelerator_seconds,
    )
