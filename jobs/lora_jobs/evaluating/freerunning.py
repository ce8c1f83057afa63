"""How long answers are when nobody fixes their length.

Speed is measured with answers of one length. A model that rambles costs more all the same, or stops
early and looks cheap, so every condition answers some of the task's prompts greedily until it ends
by itself. Answers that end in one phrase over and over are counted: what a broken model does that
looks right token by token. MLPerf Inference holds a served model's answers to 90 to 110 % of the
reference's tokens; here all this is told, and no gate looks at it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lora_api.digests import digest_of
from lora_api.estimates import ANSWER_TOKENS, comparison
from lora_api.gates import BASE, MERGED, QUANTIZED, Measurements
from lora_jobs.datasets.questions import Question, questions_of
from lora_jobs.datasets.records import RecordSet
from lora_jobs.datasets.tokens import Tokenizer
from lora_jobs.errors import Refused
from lora_jobs.evaluating.measure import Look
from lora_jobs.evaluating.scores import Key
from lora_jobs.intervals.documents import effective_documents, ratio_of_sums
from lora_jobs.intervals.rows import over_documents

FREE_RUNNING = "evaluate-free-running"
QUESTIONS = 32
"""Prompts that are answered, the set's first."""
LEAST_ROOM, MOST_ROOM = 16, 512
"""Tokens that an answer may have, whatever the set's completions have."""
ROOM = 2
"""Times the longest of the completions: where an answer is cut off there."""
PAIRS = ((QUANTIZED, MERGED), (QUANTIZED, BASE), (MERGED, BASE))
LOOP_TOKENS = 16
"""An answer whose last tokens, so many, are one phrase over and over is in a loop."""
LONGEST_PHRASE = 4
"""Tokens: with more, lists and tables would count."""
DRIFT = (0.9, 1.1)
"""MLPerf Inference's bounds for the tokens of a large language model's answers."""


def room_of(questions: Sequence[Question], tokenizer: Tokenizer) -> int:
    """Tokens after which an answer is cut off."""
    expected = [
        len(tokenizer(q.expected, add_special_tokens=False)["input_ids"]) for q in questions
    ]
    return min(MOST_ROOM, max(LEAST_ROOM, ROOM * max(expected)))


def free_running_looks(records: RecordSet, tokenizer: Any, key: Key) -> list[Look]:
    """Let every model answer the first records until it ends by itself.

    Args:
        records: The task set.
        tokenizer: Knows the token that ends an answer.
        key: Of the set and the protocol.

    Returns:
        None at all for a set of plain texts, where nothing is asked.
    """
    try:
        asked = questions_of(replace(records, records=records.records[:QUESTIONS]), tokenizer)
    except Refused:
        return []
    room = room_of(asked, tokenizer)
    prompts = [q.token_ids for q in asked]

    def ask(model: Any) -> dict[str, Any]:
        from lora_jobs.evaluating.answering import greedy_answers

        answers = greedy_answers(model, prompts, room, tokenizer.eos_token_id)
        return {
            "tokens": [len(answer) for answer in answers],
            "loops": sum(map(is_in_loop, answers)),
            "room": room,
        }

    digest = digest_of([list(prompt) for prompt in prompts])
    return [Look(FREE_RUNNING, {**key, "questions": digest, "room": room}, ask)]


def is_in_loop(answer: Sequence[int]) -> bool:
    """Whether it ends in one phrase of few tokens, over and over."""
    end = answer[-LOOP_TOKENS:]
    return len(end) == LOOP_TOKENS and any(
        all(token == end[i % n] for i, token in enumerate(end))
        for n in range(1, LONGEST_PHRASE + 1)
    )


def length_rows(looked: Mapping[str, Mapping[str, Any]]) -> Measurements:
    """Mean tokens of an answer by condition, and ratios of two conditions with intervals.

    Args:
        looked: The kept documents by condition.
    """
    tokens = {c: [float(n) for n in document["tokens"]] for c, document in looked.items()}
    if not tokens:
        return {}
    rows: Measurements = {
        ANSWER_TOKENS: {c: f"{sum(found) / len(found):.2f}" for c, found in tokens.items()}
    }
    for condition, against in PAIRS:
        one, other = tokens.get(condition, []), tokens.get(against, [])
        if sum(one) and sum(other):
            ratio = ratio_of_sums(one, other)
            counts = len(one), effective_documents(other)
            if row := over_documents(ratio.value, ratio.bounds, *counts):
                rows[comparison(ANSWER_TOKENS, condition, against)] = row
    return rows


def length_note(looked: Mapping[str, Mapping[str, Any]]) -> str:
    """In a sentence, whether what would serve answers at another length; empty if not measured."""
    if not {QUANTIZED, MERGED} <= looked.keys():
        return ""
    quantized, merged = (looked[c]["tokens"] for c in (QUANTIZED, MERGED))
    if not sum(merged):
        return "the merged model answers nothing: it ends at once"
    share, room = sum(quantized) / sum(merged), looked[MERGED]["room"]
    low, high = DRIFT
    drifts = "within" if low <= share <= high else "OUTSIDE of"
    cut = sum(n >= room for n in quantized)
    loops = {c: looked[c].get("loops") for c in (QUANTIZED, MERGED)}  # older documents have none
    looping = (
        f"; {loops[QUANTIZED]} end in a loop, of merged {loops[MERGED]}"
        if None not in loops.values()
        else ""
    )
    return (
        f"{len(merged)} answers of no fixed length: quantized writes {share:.0%} of merged's "
        f"tokens, {drifts} the {low:.0%} to {high:.0%} that MLPerf Inference allows; {cut} of its "
        f"answers were cut off at {room} tokens{looping}"
    )
