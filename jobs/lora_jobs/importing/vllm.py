"""`vllm bench serve --save-result`: one flat object a run. As vLLM 0.32 writes it.

median_ttft_ms     TTFT, ours
median_tpot_ms     (latency - TTFT) / (n - 1) of each request, ours
output_throughput  output tokens over the run, ours
"""

from lora_jobs.importing.loadrun import Document, LoadRun


def is_mine(document: Document) -> bool:
    """Whether it looks like a file of this tool."""
    return document.find("median_ttft_ms") is not None and "output_throughput" in document.root


def read(document: Document) -> LoadRun:
    """The run.

    Raises:
        Refused: A number is missing; or requests came at a rate, which is no closed loop.
    """
    rate = document.find("request_rate")
    if isinstance(rate, int | float) and rate != float("inf"):
        raise document.refuse(f"requests came at {rate} a second; give it --max-concurrency alone")
    requests = document.count("completed")
    each = max(requests, 1)
    concurrency = document.count("max_concurrency")
    return LoadRun(
        tool="vllm bench serve",
        concurrency=concurrency or None,
        requests=requests,
        failed=document.count("failed"),
        input_tokens=document.number("total_input_tokens") / each,
        output_tokens=document.number("total_output_tokens") / each,
        time_to_first_token_ms=document.number("median_ttft_ms"),
        time_per_output_token_ms=document.number("median_tpot_ms"),
        output_tokens_per_second=document.number("output_throughput"),
    )
