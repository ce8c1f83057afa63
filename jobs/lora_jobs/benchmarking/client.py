"""A streaming client of the OpenAI completions API that keeps every token's arrival.

The clock is read when bytes arrive, before they are parsed, and when the request is handed to the
transport. Events that come in one read have one arrival: that they were apart, nobody has seen.
Token counts are the engine's own (`usage`), never re-tokenized text.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx

from lora_api.runtimes import LengthLock, RuntimeRecipe
from lora_jobs.benchmarking.metrics import RequestTrace
from lora_jobs.benchmarking.prompts import Prompt

MAX_CLIENT_SHARE = 0.7
"""Of one core: a client that is busier than this measures itself and not the engine."""
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
_EVENT_END = b"\n\n"
_DATA = b"data:"


class InvalidRun(Exception):
    """An answer that is no measurement: an error, a wrong length, counts that do not agree."""


class ClientSaturated(InvalidRun):
    """This client was too busy to keep the time."""


class ServerError(InvalidRun):
    """The engine is in trouble (5xx): another time it may answer."""


@dataclass(frozen=True)
class Ask:
    """What is asked of an engine.

    Attributes:
        model: The name of the model in the request.
        output_tokens: Tokens to write.
        locked: Exactly that many, whatever the model thinks; else at most.
    """

    model: str
    output_tokens: int
    locked: bool = True


def request_body(recipe: RuntimeRecipe, ask: Ask, prompt: Prompt) -> dict[str, Any]:
    """A greedy streaming completion request as this engine understands it."""
    body: dict[str, Any] = {
        "model": ask.model,
        "prompt": list(prompt.token_ids) if recipe.takes_token_ids else prompt.text,
        "max_tokens": ask.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if ask.locked and recipe.length_lock is LengthLock.IGNORE_EOS:
        body |= {"ignore_eos": True, "min_tokens": ask.output_tokens}
    if ask.locked and recipe.length_lock is LengthLock.GENERATION_CONFIG:
        lock = {"do_sample": False, "min_new_tokens": ask.output_tokens}
        body["generation_config"] = json.dumps(lock | {"max_new_tokens": ask.output_tokens})
    if recipe.takes_token_ids:
        body["return_token_ids"] = True
    return body


class CompletionClient:
    """Asks one engine; an asynchronous context manager."""

    def __init__(
        self,
        url: str,
        recipe: RuntimeRecipe,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._recipe, self._clock, self._cpu_clock = recipe, clock, cpu_clock
        limits = httpx.Limits(max_connections=None)
        # No proxy from the environment: engines and pods are asked directly.
        self._http = httpx.AsyncClient(
            base_url=url, timeout=TIMEOUT, limits=limits, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> "CompletionClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def complete(self, ask: Ask, prompt: Prompt) -> RequestTrace:
        """One request, to its end.

        Raises:
            InvalidRun: The engine answered with an error, or not with what was asked for.
            httpx.TransportError: It did not answer.
        """
        body = request_body(self._recipe, ask, prompt)
        collected = _Answer(token_ids_named=self._recipe.takes_token_ids)
        sent_s = self._clock()
        async with self._http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                text = (await response.aread()).decode(errors="replace")[:300]
                kind = ServerError if response.is_server_error else InvalidRun
                raise kind(f"the engine answered {response.status_code}: {text}")
            async for data in response.aiter_bytes():
                collected.take(data, self._clock())
        trace = collected.trace(sent_s)
        _check(ask, prompt, trace)
        return trace

    async def closed_loop(
        self, ask: Ask, prompts: Sequence[Prompt], concurrency: int, is_timed: bool = True
    ) -> list[RequestTrace]:
        """Ask every prompt once, `concurrency` at a time; traces in the prompts' order.

        Raises:
            InvalidRun: As `complete`.
            ClientSaturated: A timed loop took more than `MAX_CLIENT_SHARE`.
            httpx.TransportError: The engine did not answer.
        """
        waiting = iter(enumerate(prompts))
        traces: dict[int, RequestTrace] = {}

        async def worker() -> None:
            for index, prompt in waiting:
                traces[index] = await self.complete(ask, prompt)

        with self._own_share_watched(is_timed):
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        return [traces[index] for index in range(len(prompts))]

    async def open_loop(
        self, ask: Ask, prompts: Sequence[Prompt], arrivals_s: Sequence[float], deadline_s: float
    ) -> list[RequestTrace | None]:
        """Ask each prompt at its moment, however many are still being answered.

        Args:
            ask: What is asked.
            prompts: One for each arrival.
            arrivals_s: When, from now.
            deadline_s: When what is not answered is cut off, from now.

        Returns:
            For each arrival its trace, `sent_s` being the moment of arrival; None for what was cut
            off.

        Raises:
            InvalidRun: As `complete`.
            ClientSaturated: It took more than `MAX_CLIENT_SHARE`.
            httpx.TransportError: The engine did not answer.
        """
        began_s = self._clock()
        traces: list[RequestTrace | None] = [None] * len(arrivals_s)

        async def arrival(index: int) -> None:
            due_s = began_s + arrivals_s[index]
            await asyncio.sleep(due_s - self._clock())
            trace = await self.complete(ask, prompts[index])
            traces[index] = replace(trace, sent_s=due_s)

        with self._own_share_watched(), suppress(TimeoutError):
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
                for index in range(len(arrivals_s)):
                    group.create_task(arrival(index))
        return traces

    @contextmanager
    def _own_share_watched(self, is_timed: bool = True) -> Iterator[None]:
        began_s, worked_s = self._clock(), self._cpu_clock()
        yield
        share = (self._cpu_clock() - worked_s) / max(self._clock() - began_s, 1e-9)
        if is_timed and share > MAX_CLIENT_SHARE:
            raise ClientSaturated(
                f"the measuring client took {share:.0%} of a core: it measures itself; "
                "lower benchmark.workload.concurrency"
            )

    async def served_models(self) -> list[str]:
        """The names that `/v1/models` lists."""
        response = await self._http.get("/v1/models")
        response.raise_for_status()
        return [str(model["id"]) for model in response.json()["data"]]

    async def prefix_cache_share(self) -> float | None:
        """The share of prompt tokens that the engine took from its prefix cache so far.

        Returns:
            None where the engine does not count it.
        """
        if self._recipe.prefix_cache_counters is None:
            return None
        from prometheus_client.parser import text_string_to_metric_families

        response = await self._http.get("/metrics")
        if response.status_code != httpx.codes.OK:
            return None
        sums = dict.fromkeys(self._recipe.prefix_cache_counters, 0.0)
        for family in text_string_to_metric_families(response.text):
            if family.name in sums:
                counted = [s.value for s in family.samples if not s.name.endswith("_created")]
                sums[family.name] += sum(counted)
        asked, found = sums.values()
        return found / asked if asked else 0.0


class _Answer:
    """A stream of server-sent events as it comes in."""

    def __init__(self, token_ids_named: bool) -> None:
        self._token_ids_named = token_ids_named
        self._rest = b""
        self._arrivals: list[float] = []
        self._pieces: list[str] = []
        self._usage: dict[str, int] = {}
        self._model = ""

    def take(self, data: bytes, now: float) -> None:
        """Bytes that arrived at `now`."""
        *events, self._rest = (self._rest + data.replace(b"\r\n", b"\n")).split(_EVENT_END)
        had_output = False
        for event in events:
            had_output |= self._take_event(event)
        if had_output:
            self._arrivals.append(now)

    def _take_event(self, event: bytes) -> bool:
        """Whether it held output tokens. A role, an empty or the last chunk holds none."""
        payload = event.removeprefix(_DATA).strip()
        if not event.startswith(_DATA) or payload == b"[DONE]":
            return False
        try:
            chunk = json.loads(payload)
        except ValueError:
            raise InvalidRun(f"the engine streamed no JSON: {payload[:200]!r}") from None
        if "error" in chunk:
            raise InvalidRun(f"the engine failed: {str(chunk['error'])[:300]}")
        self._model = chunk.get("model", self._model)
        self._usage = chunk.get("usage") or self._usage
        choice: dict[str, Any] = next(iter(chunk.get("choices", ())), {})
        text = choice.get("text") or ""
        named = self._token_ids_named and "token_ids" in choice
        has_output = bool(choice["token_ids"] if named else text)
        if has_output:
            self._pieces.append(text)
        return has_output

    def trace(self, sent_s: float) -> RequestTrace:
        """What was seen.

        Raises:
            InvalidRun: There was no output, or the engine counted nothing.
        """
        if not self._arrivals:
            raise InvalidRun("the engine wrote no output token")
        if not self._usage:
            raise InvalidRun("the engine does not count its tokens (no usage in the stream)")
        return RequestTrace(
            sent_s=sent_s,
            arrivals_s=tuple(self._arrivals),
            output_tokens=int(self._usage["completion_tokens"]),
            prompt_tokens=int(self._usage["prompt_tokens"]),
            text="".join(self._pieces),
            pieces=tuple(self._pieces),
            model=self._model,
        )


def _check(ask: Ask, prompt: Prompt, trace: RequestTrace) -> None:
    if ask.locked and trace.output_tokens != ask.output_tokens:
        raise InvalidRun(
            f"the engine wrote {trace.output_tokens} tokens instead of {ask.output_tokens}: "
            "runs of unequal length cannot be compared"
        )
    if trace.prompt_tokens != len(prompt.token_ids):
        raise InvalidRun(
            f"the engine read {trace.prompt_tokens} prompt tokens instead of "
            f"{len(prompt.token_ids)}: its tokenizer is another one"
        )
    if len(trace.pieces) > trace.output_tokens:
        raise InvalidRun(
            f"{len(trace.pieces)} chunks of output hold {trace.output_tokens} tokens: "
            "the engine does not count what it writes"
        )
