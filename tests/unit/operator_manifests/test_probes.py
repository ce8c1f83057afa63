"""The startup probe, run as the kubelet runs it: who completes a prompt has started."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from localcluster.process import free_ports
from lora_operator.manifests.probes import completion_command

COMPLETED = json.dumps({"choices": [{"text": "b"}]})


class Engine(ThreadingHTTPServer):
    """Answers every completion with the same words, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, str] = (200, COMPLETED)
        self.asked: list[tuple[str, dict[str, object]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Engine

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body)))
        code, text = self.server.answer
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


def probe(port: int) -> int:
    _, *arguments = completion_command("demo", port)
    elsewhere = {"http_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin"}
    return subprocess.run(
        [sys.executable, *arguments], env=elsewhere, capture_output=True, check=False
    ).returncode


def test_an_engine_that_completes_a_prompt_has_started(engine: Engine) -> None:
    assert probe(engine.server_port) == 0
    [(path, body)] = engine.asked
    assert (path, body["model"], body["max_tokens"]) == ("/v1/completions", "demo", 1)


@pytest.mark.parametrize(
    "answer",
    [(503, "loading"), (500, COMPLETED), (200, "{}"), (200, '{"choices": []}'), (200, "ok")],
    ids=["loading", "an error with a body", "nothing", "no choice", "no JSON"],
)
def test_an_engine_that_answers_otherwise_has_not(engine: Engine, answer: tuple[int, str]) -> None:
    engine.answer = answer
    assert probe(engine.server_port) != 0


def test_an_engine_that_does_not_listen_has_not() -> None:
    (port,) = free_ports(1)
    assert probe(port) != 0
