"""Items of lm-evaluation-harness tasks (`lm_eval --log_samples`), compared one by one.

The harness gives each model a mean and a standard error of its own. Two conditions answer the same
items, so what counts is the difference item by item, which is far less noisy than the difference of
two means (Miller, Adding Error Bars to Evals, arXiv 2411.00640).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_api.estimates import LM_EVAL, comparison
from lora_api.gates import BASE, DYNAMIC, MERGED, QUANTIZED, Measurements
from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.intervals.documents import effective_documents, ratio_of_sums
from lora_jobs.intervals.proportions import Disagreement
from lora_jobs.intervals.rows import over_documents

PAIRS = ((QUANTIZED, MERGED), (QUANTIZED, BASE), (MERGED, BASE), (DYNAMIC, BASE), (MERGED, DYNAMIC))
_FILE = re.compile(r"samples_(?P<task>.+)_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl")
_IDENTITY = ("doc_id", "doc_hash", "prompt_hash", "target_hash")
Item = tuple[str, ...]
Scores = Mapping[str, Mapping[Item, float]]
"""By metric, each item's score between 0 and 1. An item is its number and hashes."""


def read_scores(folder: Path) -> Scores:
    """The items of every task in an output folder of lm_eval.

    Metrics that are no score between 0 and 1 in any item, a perplexity for one, are left out.

    Raises:
        Refused: There are none, there are two results of a task, or a file is none of lm_eval's.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("samples_*.jsonl")):
        named = _FILE.fullmatch(file.name)
        task = named["task"] if named else file.stem
        if task in files:
            raise _refused(f"{folder} holds two results of task {task}; give the folder of one run")
        files[task] = file
    if not files:
        raise _refused(f"{folder} holds no samples_*.jsonl; run lm_eval with --log_samples")
    found: dict[str, dict[Item, float]] = {}
    for task, file in files.items():
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            for metric, item, score in _scores_of(line, f"{file.name}:{number}"):
                found.setdefault(f"{LM_EVAL}{task}/{metric}", {})[item] = score
    return {metric: s for metric, s in found.items() if all(0 <= v <= 1 for v in s.values())}


def _scores_of(line: str, place: str) -> list[tuple[str, Item, float]]:
    try:
        sample: dict[str, Any] = json.loads(line)
        item = tuple(str(sample[part]) for part in _IDENTITY)
        picked = str(sample["filter"])
        named = "" if picked == "none" else f" ({picked})"
        scores = {m: sample[m] for m in sample["metrics"]}
        return [
            (f"{metric}{named}", item, float(score) if isinstance(score, int | float) else math.nan)
            for metric, score in scores.items()
        ]
    except (ValueError, KeyError, TypeError):
        raise _refused(f"{place} is no item of lm_eval") from None


def rows_of(scores: Mapping[str, Scores]) -> Measurements:
    """The mean score by condition, and differences of conditions with intervals.

    Args:
        scores: By condition.

    Raises:
        Refused: Two conditions answered unlike items of a task.
    """
    rows: Measurements = {}
    for metric in sorted(set().union(*scores.values())):
        by_condition = {c: found[metric] for c, found in scores.items() if metric in found}
        rows[metric] = {
            c: f"{math.fsum(found.values()) / len(found):.6f}" for c, found in by_condition.items()
        }
        for condition, against in PAIRS:
            if {condition, against} <= by_condition.keys():
                one, other = by_condition[condition], by_condition[against]
                if one.keys() != other.keys():
                    raise _refused(_unlike(metric, condition, against, one, other))
                if row := _difference([(one[item], other[item]) for item in one]):
                    rows[comparison(metric, condition, against)] = row
    return rows


def _unlike(
    metric: str,
    condition: str,
    against: str,
    one: Mapping[Item, float],
    other: Mapping[Item, float],
) -> str:
    apart = len(one.keys() ^ other.keys())
    return (
        f"{metric.removeprefix(LM_EVAL)}: {condition} and {against} answered unlike items ({apart} "
        "stand in one of them only, by number, text, prompt and target); use the same limit, "
        "few-shot examples and chat template for both"
    )


def _difference(pairs: Sequence[tuple[float, float]]) -> dict[str, str] | None:
    if all(score in (0.0, 1.0) for pair in pairs for score in pair):
        found = Disagreement(
            gained=sum(one > other for one, other in pairs),
            lost=sum(one < other for one, other in pairs),
            records=len(pairs),
        )
        return over_documents(found.difference, found.bounds, len(pairs), float(len(pairs)))
    once = [1.0] * len(pairs)
    mean = ratio_of_sums([one - other for one, other in pairs], once)
    return over_documents(mean.value, mean.bounds, len(pairs), effective_documents(once))


def _refused(why: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, why)
