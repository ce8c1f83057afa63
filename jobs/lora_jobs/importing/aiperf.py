"""AIPerf's `profile_export_aiperf.json`: one object a metric, with unit. As AIPerf 0.13 writes it.

time_to_first_token.p50      TTFT, ours; ms
inter_token_latency.p50      (latency - TTFT) / (n - 1) of each request, our TPOT; ms
output_token_throughput.avg  output tokens over the run, ours
"""

from lora_jobs.importing.loadrun import Document, LoadRun

UNITS = {"time_to_first_token": "ms", "inter_token_latency": "ms"}


def is_mine(document: Document) -> bool:
    """Whether it looks like a file of this tool."""
    return document.find("output_token_throughput", "unit") is not None


def read(document: Document) -> LoadRun:
    """The run.

    Raises:
        Refused: A number is missing or in another unit, the model did not stream, or the run ended
            early.
    """
    if document.find("was_cancelled") or document.find("is_complete") is False:
        why = document.find("incomplete_reason") or "it was cancelled"
        raise document.refuse(f"the run is not whole: {why}")
    for metric, unit in UNITS.items():
        if document.find(metric) is None:
            raise document.refuse(f"there is no {metric}; run aiperf with --streaming")
        if document.find(metric, "unit") != unit:
            raise document.refuse(f"{metric} is in {document.find(metric, 'unit')!r}, not {unit}")
    return LoadRun(
        tool=f"aiperf {document.find('aiperf_version') or ''}".rstrip(),
        concurrency=_concurrency(document),
        requests=document.count("request_count", "avg"),
        failed=document.count("error_request_count", "avg"),
        input_tokens=document.number("input_sequence_length", "avg"),
        output_tokens=document.number("output_sequence_length", "avg"),
        time_to_first_token_ms=document.number("time_to_first_token", "p50"),
        time_per_output_token_ms=document.number("inter_token_latency", "p50"),
        output_tokens_per_second=document.number("output_token_throughput", "avg"),
    )


def _concurrency(document: Document) -> int | None:
    """Of the last phase, which is the one that is measured."""
    phases = document.find("input_config", "phases")
    found = phases[-1].get("concurrency") if isinstance(phases, list) and phases else None
    return found if isinstance(found, int) else None
