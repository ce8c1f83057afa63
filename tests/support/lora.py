"""One LoRADeployment on a cluster, as tests look at it: polled, with a deadline."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from kubectl import Kubectl, KubectlError

WORKING = ("merge", "quantize", "evaluate", "benchmark")
STAGE_LABEL = "lora-operator.dev/stage"
PROMPT = "def read_lines(path):\n    "
Json = dict[str, Any]


class DeadlineExceeded(AssertionError):
    """What was waited for did not come; the message holds what was there instead."""


def until(
    what: str, check: Callable[[], object], seconds: float, seen: Callable[[], object] = str
) -> None:
    """Poll until `check` is true.

    Raises:
        DeadlineExceeded: It is not, after `seconds`; says what `seen` returns.
    """
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"{what}: not after {seconds:.0f} s; {seen()}")
        time.sleep(0.5)


@dataclass(frozen=True)
class Lora:
    """One object in a namespace."""

    kubectl: Kubectl
    name: str

    @property
    def document(self) -> Json:
        return self.kubectl.get("lora", self.name)

    @property
    def status(self) -> Json:
        status: Json = self.document.get("status", {})
        return status

    def condition(self, kind: str) -> Json:
        """A condition of the current generation; Unknown when there is none yet."""
        document = self.document
        for condition in document.get("status", {}).get("conditions", []):
            current = condition["observedGeneration"] == document["metadata"]["generation"]
            if condition["type"] == kind and current:
                found: Json = condition
                return found
        return {"status": "Unknown", "reason": "", "message": ""}

    def wait(self, kind: str, status: str, *, reason: str = "", seconds: float = 900) -> Json:
        """Wait for a condition and return it."""

        def there() -> bool:
            now = self.condition(kind)
            return now["status"] == status and reason in ("", now["reason"])

        until(f"{self.name}: {kind}={status} {reason}", there, seconds, self._story)
        return self.condition(kind)

    def jobs(self, *stages: str) -> list[Json]:
        """Stage Jobs, of these stages or of all."""
        selector = f"lora-operator.dev/name={self.name}"
        jobs = self.kubectl.items("jobs", selector)
        return [j for j in jobs if not stages or j["metadata"]["labels"][STAGE_LABEL] in stages]

    def serving_release(self) -> str:
        """What the Service selects; empty when there is none."""
        try:
            service = self.kubectl.get("service", self.name)
        except KubectlError:
            return ""
        return str(service["spec"]["selector"].get("lora-operator.dev/release", ""))

    def url(self) -> str:
        """The Service's address, which this host reaches."""
        spec = self.kubectl.get("service", self.name)["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def _story(self) -> str:
        status = self.status
        conditions = [(c["type"], c["status"], c["reason"], c["message"][:200])
                      for c in status.get("conditions", [])]  # fmt: skip
        stages = [(s["name"], s["state"], s.get("message", "")[:100])
                  for s in status.get("stages", [])]  # fmt: skip
        return f"phase {status.get('phase')}\n{conditions}\n{stages}"


@dataclass
class Asker:
    """A client that asks all the time, over new connections, and keeps what went wrong."""

    url: str
    model: str
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    answers: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Asker":
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(timeout=120)

    def ask(self) -> str:
        """One greedy completion."""
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
        answer = httpx.post(f"{self.url}/v1/completions", json=body, timeout=90)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["text"])

    def _ask(self) -> None:
        while not self._stop.wait(1.0):
            self.asked += 1
            try:
                self.answers.add(self.ask())
            except httpx.HTTPError as error:
                self.failures.append(repr(error))


@dataclass
class Streamer(Asker):
    """A client that streams over one kept connection; a stream without its end is a failure."""

    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=90))

    def ask(self) -> str:
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
        url = f"{self.url}/v1/completions"
        with self._client.stream("POST", url, json=body | {"stream": True}) as answer:
            answer.raise_for_status()
            events = [e.removeprefix("data:").strip() for e in answer.iter_lines() if e]
        choices = [c for e in events if e != "[DONE]" for c in json.loads(e)["choices"]]
        if not any(c.get("finish_reason") for c in choices):
            raise httpx.ReadError("the stream ended before the answer did")
        return "".join(str(c["text"]) for c in choices)
