"""An engine with known delays and defects; `python fake_engine.py PORT SCRIPT_JSON` serves it.

Only the standard library, so that a process of it starts at once. See also `fake_transport`.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Script:
    """How the engine behaves.

    Attributes:
        first_token_s: From request to first token.
        gap_s: Between tokens.
        slow_first_s: Added to the very first request: lazy initialisation.
        stops_after: Tokens after which it ends, whatever was asked; 0: never early.
        burst: All tokens in one write at the end.
        counts: Whether the stream ends with usage.
        prompt_tokens: What it says that it read; None: what it was given.
        status: HTTP status of completions.
        says: What it answers with; token i of prompt p is `says` + hash.
        models: What /v1/models lists.
        model: The name it answers under; empty: the one asked for.
        dies_on_start: It ends at once, after writing this.
        dies_on_request: It ends when it is asked, after writing this.
        metrics: What /metrics says; empty: there is none (as a transport only).
        repeats: Every token of every answer is `says`.
        flaky_after: Answers change after this token from request to request; 0: never.
    """

    first_token_s: float = 0.05
    gap_s: float = 0.01
    slow_first_s: float = 0.0
    stops_after: int = 0
    burst: bool = False
    counts: bool = True
    prompt_tokens: int | None = None
    status: int = 200
    says: str = "w"
    models: list[str] = field(default_factory=lambda: ["model"])
    model: str = ""
    dies_on_start: str = ""
    dies_on_request: str = ""
    repeats: bool = False
    flaky_after: int = 0
    metrics: str = ""


class FakeModel:
    """The answers of a script: (delay before it in seconds, bytes) pairs."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []

    def answer(self, body: dict[str, Any]) -> Iterator[tuple[float, bytes]]:
        """Server-sent events of one completion, beginning with one that holds no output."""
        script = self.script
        nth = len(self.requests)
        self.requests.append(body)
        tokens = min(script.stops_after or body["max_tokens"], body["max_tokens"])
        prompt = body["prompt"]
        yield 0.0, self._event(body, "")
        first = script.first_token_s + (script.slow_first_s if nth == 0 else 0.0)
        words = [self._word(prompt, i, nth) for i in range(tokens)]
        if script.burst:
            events = b"".join(self._event(body, word) for word in words)
            yield first + script.gap_s * (tokens - 1), events
        else:
            for index, word in enumerate(words):
                yield first if index == 0 else script.gap_s, self._event(body, word)
        if script.counts:
            read = len(prompt) if isinstance(prompt, list) else len(prompt.split())
            usage = {
                "completion_tokens": tokens,
                "prompt_tokens": read if script.prompt_tokens is None else script.prompt_tokens,
            }
            yield 0.0, self._event(body, None, usage)
        yield 0.0, b"data: [DONE]\n\n"

    def _word(self, prompt: Any, index: int, nth: int) -> str:
        if self.script.repeats:
            return self.script.says
        flaky = self.script.flaky_after and index >= self.script.flaky_after
        return f"{self.script.says}{sum(map(ord, str(prompt))) % 97}.{index}{'~' * nth * flaky} "

    def _event(self, body: dict[str, Any], word: str | None, usage: Any = None) -> bytes:
        choices = [] if word is None else [{"index": 0, "text": word}]
        name = self.script.model or body["model"]
        chunk = {"model": name, "choices": choices} | ({"usage": usage} if usage else {})
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _serve(port: int, script: Script) -> None:
    model = FakeModel(script)
    if script.dies_on_start:
        sys.exit(script.dies_on_start)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            payload = json.dumps({"data": [{"id": m} for m in script.models]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if script.dies_on_request:
                print(script.dies_on_request, flush=True)
                os._exit(9)
            self.send_response(200)
            self.send_header("connection", "close")
            self.end_headers()
            for delay, data in model.answer(body):
                time.sleep(delay)
                self.wfile.write(data)
                self.wfile.flush()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Script(**json.loads(sys.argv[2])))
