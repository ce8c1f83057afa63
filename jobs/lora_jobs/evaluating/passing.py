"""Whether models answer the task's records rightly: the metric PassRate.

Every condition answers every prompt greedily, in one runtime; the share of right answers is
compared record by record. What is kept of an answer is only whether it was right.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from lora_api.digests import digest_of
from lora_api.estimates import PASS_RATE, Part, comparison
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED, Measurements
from lora_api.jobcontract import Reason
from lora_api.scoring import Scorer, ScorerType
from lora_jobs.datasets.questions import Question
from lora_jobs.errors import Refused
from lora_jobs.evaluating.comparisons import part_of
from lora_jobs.evaluating.measure import Look
from lora_jobs.evaluating.scores import Key
from lora_jobs.intervals.proportions import Disagreement
from lora_jobs.intervals.rows import over_documents
from lora_jobs.jsonfiles import parse_json

PASSING = "evaluate-passing"
PATTERN_SECONDS = 1.0
MAX_ANSWER_BYTES = 2**20
JUDGED = ((QUANTIZED, MERGED),)
TOLD = ((DYNAMIC, BASE), (MERGED, BASE), (QUANTIZED, BASE), (MERGED, DYNAMIC))


def check_expected(scorer: Scorer, questions: Sequence[Question]) -> None:
    """Let completions pass that the scorer can compare with.

    Raises:
        Refused: A completion is no pattern, or no JSON; says the how manieth, not its text.
    """
    for number, question in enumerate(questions, start=1):
        try:
            if scorer.type is ScorerType.REGEX:
                regex.compile(question.expected.strip())
            elif scorer.type is ScorerType.JSON_EQUAL:
                parse_json(question.expected, MAX_ANSWER_BYTES)
        except (regex.error, ValueError):
            raise Refused(
                Reason.INVALID_INPUT,
                f"the completion of record {number} of the task set is not what scorer "
                f"{scorer.type} compares with; correct it or use another scorer",
            ) from None


def is_right(kind: ScorerType, answer: str, expected: str) -> bool:
    """Whether an answer passes; what takes too long to match does not."""
    said, wanted = answer.strip(), expected.strip()
    match kind:
        case ScorerType.EXACT_MATCH:
            return said == wanted
        case ScorerType.CONTAINS:
            return wanted in said
        case ScorerType.REGEX:
            try:
                return regex.search(wanted, said, timeout=PATTERN_SECONDS) is not None
            except TimeoutError:
                return False
        case ScorerType.JSON_EQUAL:
            try:
                return _canonical(said) == _canonical(wanted)
            except ValueError:
                return False


def _canonical(text: str) -> str:
    # As text: in Python 1 == True, in JSON they differ.
    return json.dumps(parse_json(text, MAX_ANSWER_BYTES), sort_keys=True)


def passing_look(scorer: Scorer, questions: Sequence[Question], tokenizer: Any, key: Key) -> Look:
    """Let every model answer all questions.

    Args:
        scorer: How answers are compared.
        questions: The task set's, in its order.
        tokenizer: Decodes answers.
        key: Of the set and the protocol.
    """

    def ask(model: Any) -> dict[str, Any]:
        from lora_jobs.evaluating.answering import greedy_answers

        prompts = [q.token_ids for q in questions]
        answers = greedy_answers(model, prompts, scorer.max_tokens, tokenizer.eos_token_id)
        return {"passed": [
            is_right(scorer.type, tokenizer.decode(said, skip_special_tokens=True), q.expected)
            for said, q in zip(answers, questions, strict=True)
        ]}  # fmt: skip

    asked = digest_of([[list(q.token_ids), q.expected] for q in questions])
    return Look(PASSING, {**key, "scorer": scorer.to_json(), "questions": asked}, ask)


def pass_rows(looked: Mapping[str, Mapping[str, Any]]) -> Measurements:
    """The share of right answers by condition, and its differences in points with intervals.

    Args:
        looked: The kept documents by condition.
    """
    passed = {c: [bool(p) for p in document["passed"]] for c, document in looked.items()}
    if not passed:
        return {}
    rows: Measurements = {
        PASS_RATE: {c: f"{sum(found) / len(found):.6f}" for c, found in passed.items()}
    }
    records = range(len(next(iter(passed.values()))))
    for part in Part:
        numbers = part_of(records, part)
        for condition, against in JUDGED + (TOLD if part is Part.ALL else ()):
            if {condition, against} <= passed.keys() and numbers:
                pairs = [(passed[condition][n], passed[against][n]) for n in numbers]
                if row := _difference(pairs):
                    rows[comparison(PASS_RATE, condition, against, part)] = row
    return rows


def _difference(pairs: Sequence[tuple[bool, bool]]) -> dict[str, str] | None:
    gained = sum(one and not other for one, other in pairs)
    lost = sum(other and not one for one, other in pairs)
    found = Disagreement(gained, lost, len(pairs))
    return over_documents(found.difference, found.bounds, len(pairs), float(len(pairs)))
