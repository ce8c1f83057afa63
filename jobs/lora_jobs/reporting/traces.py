"""A request of the benchmark's raw record as it was seen. Pure."""

from collections.abc import Mapping
from typing import Any

from lora_jobs.benchmarking.metrics import RequestTrace


def trace_of(document: Mapping[str, Any]) -> RequestTrace:
    """The trace, without its text."""
    return RequestTrace(
        sent_s=document["sentMicroseconds"] / 1e6,
        arrivals_s=tuple(a / 1e6 for a in document["arrivalsMicroseconds"]),
        output_tokens=document["outputTokens"],
        prompt_tokens=document["promptTokens"],
    )
