"""Objects for tests: the smallest valid one, and canned measurements of a good model."""

from typing import Any

from lora_api.estimates import GAIN_RETAINED, Part, comparison
from lora_api.gates import Measurements


def spec_document(**changes: Any) -> dict[str, Any]:
    """A small valid spec; `changes` are set by dotted path."""
    document: dict[str, Any] = {
        "connections": [
            {
                "name": "models",
                "s3": {"endpoint": "http://127.0.0.1:7070", "secretRef": {"name": "s3"}},
            }
        ],
        "baseModel": {"uri": "s3://models/base"},
        "adapters": [{"uri": "s3://models/adapter"}],
        "quantization": {"calibration": {"sources": [{"uri": "s3://models/calibration.jsonl"}]}},
        "evaluation": {"task": {"uri": "s3://models/task.jsonl"}},
        "artifact": {"uri": "s3://models/store", "connection": "models"},
        "serving": {
            "runtime": "Transformers",
            "accelerator": {"resource": "None"},
            "strategy": {"blueGreen": {"bakeTime": "0s", "drainTimeout": "0s"}},
        },
    }  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = document
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return document


def estimate_row(value: float, half_width: float = 0.001, **counts: str) -> dict[str, str]:
    """A comparison over 100 documents with a narrow interval."""
    counts = counts or {"documents": "100", "effectiveDocuments": "90.0"}
    bounds = {"lower": f"{value - half_width:.6f}", "upper": f"{value + half_width:.6f}"}
    return {"value": f"{value:.6f}", **bounds, **counts}


def over_all_parts(metric: str, pair: tuple[str, str], row: dict[str, str]) -> Measurements:
    """The same comparison over all documents and over each half."""
    return {comparison(metric, *pair, part): row for part in Part}


def quality_comparisons(task_ratio: float, gain_retained: float = 0.99) -> Measurements:
    """evaluate's comparisons, where quantized perplexity is `task_ratio` times merged's."""
    to_merged, gain = ("quantized", "merged"), ("base", "merged")
    return {
        **over_all_parts("Perplexity/task", to_merged, estimate_row(task_ratio)),
        **over_all_parts("Perplexity/task", gain, estimate_row(2.718)),
        **over_all_parts(GAIN_RETAINED, to_merged, estimate_row(gain_retained)),
        comparison("Perplexity/task", "merged", "dynamic"): estimate_row(1.0),
    }


def measurements(task_ratio: float = 1.01) -> tuple[Measurements, Measurements]:
    """(evaluate's, benchmark's) rows of a model that passes every default gate.

    Args:
        task_ratio: Task perplexity of quantized by merged; above 1.05 it fails a default gate.
    """
    merged, quantized = "7.389", f"{7.389 * task_ratio:.6f}"
    quality: Measurements = {
        "NegativeLogLikelihood/task": {
            "base": "3.0", "dynamic": "2.0", "merged": "2.0", "quantized": "2.01",
        },
        "Perplexity/task": {
            "base": "20.09", "dynamic": merged, "merged": merged, "quantized": quantized,
        },
        "WeightsBytes": {"base": "1000", "dynamic": "1010", "merged": "1000", "quantized": "400"},
        **quality_comparisons(task_ratio),
    }  # fmt: skip
    speed: Measurements = {
        "TimeToFirstToken/p50@1": {"base": "50", "merged": "50", "quantized": "51"},
        "OutputTokensPerSecond@1": {"base": "100", "merged": "100", "quantized": "150"},
        "PeakMemoryBytes": {"base": "2000", "merged": "2000", "quantized": "1500"},
        "TimeToFirstToken/p50@1:quantized/base": estimate_row(1.02, blocks="8"),
        "OutputTokensPerSecond@1:quantized/base": estimate_row(1.5, blocks="8"),
    }
    return quality, speed


def without_quantized(rows: Measurements) -> Measurements:
    """What is measured where nothing was quantized."""
    return {
        key: {c: v for c, v in row.items() if c != "quantized"}
        for key, row in rows.items()
        if "quantized/" not in key
    }


def merged_against_base(rows: Measurements) -> Measurements:
    """The same speeds, with merged as what would serve."""
    paired = {k.replace("quantized/", "merged/"): r for k, r in rows.items() if ":" in k}
    return without_quantized(rows) | paired
