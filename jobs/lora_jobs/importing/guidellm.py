"""GuideLLM's `benchmarks.json`: a list of benchmarks, one for each load. As GuideLLM 0.8 writes it.

time_to_first_token_ms     TTFT, ours
inter_token_latency_ms     (last - first token) / (n - 1) of each request, our TPOT; weighted by its
                           gaps, which is nothing at equal lengths
time_per_output_token_ms   latency / n, with the first token in it: NOT our TPOT, not read
output_tokens_per_second   output tokens over the run, ours
"""

from lora_jobs.importing.loadrun import Document, LoadRun

_CLOSED = ("synchronous", "concurrent")


def is_mine(document: Document) -> bool:
    """Whether it looks like a file of this tool."""
    return document.find("benchmarks", 0, "metrics", "inter_token_latency_ms") is not None


def read(document: Document) -> LoadRun:
    """The only benchmark of the file.

    Raises:
        Refused: There are several, it is no closed loop, or a number is missing.
    """
    benchmarks = document.find("benchmarks")
    if len(benchmarks) != 1:
        raise document.refuse(f"it holds {len(benchmarks)} benchmarks; give each a file of its own")
    strategy = document.find("benchmarks", 0, "config", "strategy") or {}
    kind = strategy.get("type_")
    if kind not in _CLOSED:
        raise document.refuse(f"its strategy is {kind!r}; a closed loop is {' or '.join(_CLOSED)}")

    def of(metric: str, *path: str) -> float:
        return document.number("benchmarks", 0, "metrics", metric, "successful", *path)

    def requests(status: str) -> int:
        return document.count("benchmarks", 0, "metrics", "request_totals", status)

    version = document.find("metadata", "guidellm_version") or ""
    return LoadRun(
        tool=f"guidellm {version}".rstrip(),
        concurrency=1 if kind == "synchronous" else strategy.get("streams"),
        requests=requests("successful"),
        # At its end the tool cuts off what runs; that is no failure of the engine.
        failed=requests("errored"),
        input_tokens=of("prompt_token_count", "mean"),
        output_tokens=of("output_token_count", "mean"),
        time_to_first_token_ms=of("time_to_first_token_ms", "median"),
        time_per_output_token_ms=of("inter_token_latency_ms", "median"),
        output_tokens_per_second=of("output_tokens_per_second", "mean"),
    )
