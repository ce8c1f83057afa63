"""Objects for tests: the smallest valid one, and canned measurements of a good model."""

from typing import Any

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
        "serving": {"runtime": "Transformers", "accelerator": {"resource": "None"}},
    }  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = document
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return document


def measurements() -> tuple[Measurements, Measurements]:
    """(evaluate's, benchmark's) rows of a model that passes every default gate."""
    quality: Measurements = {
        "NegativeLogLikelihood/task": {
            "base": "3.0", "dynamic": "2.0", "merged": "2.0", "quantized": "2.01",
        },
        "Perplexity/task": {
            "base": "20.09", "dynamic": "7.389", "merged": "7.389", "quantized": "7.463",
        },
        "WeightsBytes": {"base": "1000", "dynamic": "1010", "merged": "1000", "quantized": "400"},
    }  # fmt: skip
    speed: Measurements = {
        "TimeToFirstToken/p50@1": {"base": "50", "merged": "50", "quantized": "51"},
        "OutputTokensPerSecond@1": {"base": "100", "merged": "100", "quantized": "150"},
        "PeakMemoryBytes": {"base": "2000", "merged": "2000", "quantized": "1500"},
    }
    return quality, speed
