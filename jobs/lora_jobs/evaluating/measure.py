"""Every condition on every set, each computed once and kept in the store.

A model is loaded only if one of its scores is missing, once for all sets; the dynamic condition
is measured on the base model's weights right after the base itself.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED
from lora_api.jobcontract import Progress
from lora_api.layout import action
from lora_jobs.context import ReportProgress
from lora_jobs.errors import Refused
from lora_jobs.evaluating.models import (
    NotApplicable,
    causal_model,
    on_accelerator,
    vocabulary_size,
    with_adapters,
)
from lora_jobs.evaluating.nll import window_nlls
from lora_jobs.evaluating.scores import (
    MODELS,
    OWN_TOKENIZER,
    Key,
    Score,
    UnlikeScores,
    entry_hash,
    score_from,
    score_of,
    score_of_equal_text,
)
from lora_jobs.evaluating.windows import Window, windows_digest
from lora_jobs.weightfiles import weights_bytes

ENTRY_STAGE = "evaluate-condition"


class Entries(Protocol):
    """Where scores are kept: the part of `context.Outputs` that is used."""

    def get_json(self, key: str) -> dict[str, object] | None:
        """A stored document, or None."""
        ...

    def put_json_once(self, key: str, document: object) -> bool:
        """Create a document; False when one is there already."""
        ...


class NoEntries:
    """Keeps nothing: for measuring by hand, where files have no digests."""

    def get_json(self, key: str) -> dict[str, object] | None:
        """Nothing."""
        return None

    def put_json_once(self, key: str, document: object) -> bool:
        """Forget it."""
        return True


@dataclass(frozen=True)
class Subject:
    """What a condition measures: its files, and their digests in the same order.

    Attributes:
        adapter_weights: Of the unmerged adapters, as decimals; empty where all are 1.
    """

    condition: str
    folders: tuple[Path, ...]
    digests: tuple[str, ...]
    adapter_weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationSet:
    """Windows of a set, as one tokenizer cut them for all conditions.

    Attributes:
        key: Digest of the set and the protocol; the models are added.
        cut_for: The same documents as the tokenizer in a model's folder cuts them.
    """

    name: str
    windows: Sequence[Window]
    key: Key
    cut_for: Callable[[Path], Sequence[Window]] | None = None

    @property
    def highest_token(self) -> int:
        """The highest token id of all windows."""
        return max(max(w.token_ids) for w in self.windows)

    @property
    def document_count(self) -> int:
        """Documents with a scored token."""
        return len({w.document for w in self.windows})

    @property
    def scored_tokens(self) -> int:
        """Tokens whose prediction counts."""
        return sum(w.scored_tokens for w in self.windows)


@dataclass(frozen=True)
class Look:
    """Something else that every loaded model is asked, kept in the store like its scores.

    Attributes:
        name: What it is called in the store.
        key: All that decides the outcome besides the model.
        ask: From a model to the document that is kept.
    """

    name: str
    key: Key
    ask: Callable[[Any], dict[str, Any]]


@dataclass
class Evaluation:
    """What was measured.

    Attributes:
        looked: By look and condition, what was found.
        notes: What was not measured, by condition, and why.
        reused: How many scores were in the store.
        accelerator_seconds: How long an accelerator was held; 0 on a CPU.
    """

    scores: list[Score] = field(default_factory=list)
    looked: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    weights_bytes: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    accelerator_seconds: float = 0.0


def set_key(set_digest: str, windows: Sequence[Window], protocol: Key) -> Key:
    """The key of a set's scores, without the models."""
    return {"set": set_digest, "windows": windows_digest(windows), **protocol}


def measure(
    subjects: Sequence[Subject],
    sets: Sequence[EvaluationSet],
    dtype: str,
    entries: Entries,
    report: ReportProgress,
    looks: Sequence[Look] = (),
) -> Evaluation:
    """Measure every subject on every set, taking what the store has.

    Args:
        subjects: At most one a condition.
        sets: Task and, if given, general.
        dtype: The type that every model runs in.
        entries: Where scores are kept.
        report: Told after every batch.
        looks: What else every model is asked.

    Returns:
        A condition that cannot be measured is left out with a note; never a made-up number.
    """
    return _Measurement(list(subjects), list(sets), dtype, entries, report, looks).run()


class _Measurement:
    """One call of `measure`; collects as it goes."""

    def __init__(
        self,
        subjects: list[Subject],
        sets: list[EvaluationSet],
        dtype: str,
        entries: Entries,
        report: ReportProgress,
        looks: Sequence[Look],
    ) -> None:
        self.subjects, self.looks = {s.condition: s for s in subjects}, looks
        self.sets, self.dtype, self.entries = sets, dtype, entries
        self.scores: dict[tuple[str, str], Score] = {}
        self.result = Evaluation(looked={look.name: {} for look in looks})
        self.meter = _Meter(report)

    def run(self) -> Evaluation:
        for subject in self.subjects.values():
            self._read_back(subject)
        self.result.reused = len(self.scores)
        self.meter.total = sum(
            len(s.windows) for subject in self.subjects.values() for s in self._missing(subject)
        )
        self._base_and_dynamic()
        for condition in (MERGED, QUANTIZED):
            if condition in self.subjects and self._lacks(self.subjects[condition]):
                subject = self.subjects[condition]
                with self._noting(subject), causal_model(subject.folders[0], self.dtype) as model:
                    self._score(subject, model)
        for subject in self.subjects.values():
            self.result.weights_bytes[subject.condition] = weights_bytes(*subject.folders)
        self.result.scores = list(self.scores.values())
        if any(s.own_tokenizer for s in self.result.scores):
            self.result.notes[OWN_TOKENIZER] = (
                "base reads the sets with its own tokenizer, for the adapter comes with a larger "
                "one; its loss on the same text is told per token of the merged model"
            )
        if on_accelerator():
            self.result.accelerator_seconds = time.monotonic() - self.meter.started
        return self.result

    def _base_and_dynamic(self) -> None:
        wanted = [self.subjects[c] for c in (BASE, DYNAMIC) if c in self.subjects]
        wanted = [s for s in wanted if self._lacks(s)]
        if not wanted:
            return
        with causal_model(wanted[0].folders[0], self.dtype) as model:
            for subject in wanted:
                with self._noting(subject):
                    if subject.condition == DYNAMIC:
                        weights = [float(w) for w in subject.adapter_weights]
                        self._score(subject, with_adapters(model, subject.folders[1:], weights))
                    else:
                        self._score(subject, model)

    @contextmanager
    def _noting(self, subject: Subject) -> Iterator[None]:
        try:
            yield
        except NotApplicable as reason:
            self.result.notes[subject.condition] = f"not measured: {reason}"

    def _score(self, subject: Subject, model: Any) -> None:
        rows = vocabulary_size(model)
        for evaluation_set in self._missing(subject):
            done = self.meter.part(f"{subject.condition} on {evaluation_set.name}")
            if evaluation_set.highest_token < rows:
                self._keep(subject, self._scored(subject, evaluation_set, model, done))
            else:
                self._keep(subject, self._of_equal_text(subject, evaluation_set, model, done))
        for look in self._unasked(subject):
            if all(s.highest_token < rows for s in self.sets):
                self._ask(subject, look, model)

    def _scored(
        self, subject: Subject, its: EvaluationSet, model: Any, done: Callable[[int], None]
    ) -> Score:
        key = self._key(subject, its)
        nlls = window_nlls(model, its.windows, done)
        return score_of(subject.condition, its.name, key, its.windows, nlls)

    def _of_equal_text(
        self, subject: Subject, its: EvaluationSet, model: Any, done: Callable[[int], None]
    ) -> Score:
        """The base of an adapter with a larger tokenizer reads the text with its own."""
        beyond = f"token {its.highest_token} is beyond its {vocabulary_size(model)} embeddings"
        if subject.condition != BASE or its.cut_for is None:
            raise NotApplicable(f"{beyond}; the adapter comes with a larger tokenizer")
        try:
            own = replace(its, windows=its.cut_for(subject.folders[0]))
            return score_of_equal_text(self._scored(subject, own, model, done), its.windows)
        except (Refused, UnlikeScores) as error:
            raise NotApplicable(f"{beyond}, and with its own tokenizer: {error}") from error

    def _ask(self, subject: Subject, look: Look, model: Any) -> None:
        document, path = look.ask(model), self._look_path(subject, look)
        if not self.entries.put_json_once(path, document):
            document = self.entries.get_json(path) or document
        self.result.looked[look.name][subject.condition] = document

    def _keep(self, subject: Subject, score: Score) -> None:
        path = action(ENTRY_STAGE, entry_hash(score.key))
        if not self.entries.put_json_once(path, score.to_document()):
            # Someone else was quicker: all readers see one number.
            score = self._stored(subject, score.set_name, score.key) or score
        self.scores[subject.condition, score.set_name] = score

    def _read_back(self, subject: Subject) -> None:
        for evaluation_set in self.sets:
            score = self._stored(subject, evaluation_set.name, self._key(subject, evaluation_set))
            if score:
                self.scores[subject.condition, evaluation_set.name] = score
        for look in self.looks:
            if document := self.entries.get_json(self._look_path(subject, look)):
                self.result.looked[look.name][subject.condition] = document

    def _stored(self, subject: Subject, name: str, key: Key) -> Score | None:
        document = self.entries.get_json(action(ENTRY_STAGE, entry_hash(key)))
        return None if document is None else score_from(document, subject.condition, name, key)

    def _key(self, subject: Subject, evaluation_set: EvaluationSet) -> Key:
        return {**evaluation_set.key, MODELS: [*subject.digests, *subject.adapter_weights]}

    def _look_path(self, subject: Subject, look: Look) -> str:
        models = [*subject.digests, *subject.adapter_weights]
        return action(look.name, entry_hash({**look.key, MODELS: models}))

    def _unasked(self, subject: Subject) -> list[Look]:
        return [k for k in self.looks if subject.condition not in self.result.looked[k.name]]

    def _lacks(self, subject: Subject) -> bool:
        return bool(self._missing(subject) or self._unasked(subject))

    def _missing(self, subject: Subject) -> list[EvaluationSet]:
        return [s for s in self.sets if (subject.condition, s.name) not in self.scores]


class _Meter:
    """Turns windows done into progress with an ETA."""

    def __init__(self, report: ReportProgress) -> None:
        self.report, self.total, self.before = report, 0, 0
        self.started = time.monotonic()

    def part(self, message: str) -> Callable[[int], None]:
        start = self.before

        def done(windows: int) -> None:
            self.before = start + windows
            elapsed = time.monotonic() - self.started
            eta = round(elapsed / self.before * (self.total - self.before))
            self.report(
                Progress(
                    done=self.before,
                    total=self.total,
                    unit="windows",
                    eta_seconds=max(0, eta),
                    message=message,
                )
            )

        return done
