"""Parts of an object's life, each led from its beginning to silence under one fault."""

import asyncio
import contextlib
import itertools
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from builders import spec_document
from canned_stages import BAD_ADAPTER, CannedStages
from chart import chart_rules
from faultlab.adminapi import AdminApi
from faultlab.kubelet import LabKubelet, Place
from faultlab.processes import Operator, Zygote
from faultlab.proxy import Fault, Proxy
from faultlab.watchman import Watchman, is_unfinished
from faultlab.writes import Point, told
from localcluster import pki
from localcluster.process import free_ports
from lora_api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from lora_api.naming import ANNOTATION_INPUT_HASH, ANNOTATION_SPEC_HASH, LABEL_STAGE
from operator_process import IMAGES

Json = dict[str, Any]
NAME = "demo"
QUICK = {
    "RESYNC_SECONDS": "1.5", "BACKOFF_MIN_SECONDS": "1", "BACKOFF_MAX_SECONDS": "2",
    "PROGRESS_SECONDS": "1",
}  # fmt: skip
QUIET_SECONDS = 2.5
"""Longer than a resync with its jitter."""
QUIET_LOOKS = 3
"""The first may have begun before the last write, the second is whole before the third begins."""
_MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(rf"{NAME}-([a-z]+)-[0-9a-f]{{8}}"), rf"{NAME}-\1-<job>"),
    (re.compile(r"life-\d+"), "<namespace>"),
)


@dataclass(frozen=True)
class Part:
    """One part of a life.

    Attributes:
        adapter: What the object asks for.
        ready: Status and reason of Ready at its end.
        before: The adapter that serves already, None at the beginning of the life.
        detours: Specs by name, each asked for until nothing happens any more, and then taken back.
    """

    name: str
    adapter: str
    ready: tuple[str, str]
    before: str | None = None
    detours: Mapping[str, Json] = field(default_factory=dict, hash=False)


FIRST = Part("first release", "good", ("True", ""))
SWITCH = Part("switch to a new adapter", "better", ("True", ""), before="good")
FAILED = Part("failed candidate", BAD_ADAPTER, ("False", "GatesFailed"), before="good")
PARTS = (FIRST, SWITCH, FAILED)


def good_spec(adapter: str) -> Json:
    """The small spec for this adapter."""
    return spec_document(adapters=[{"uri": f"s3://models/{adapter}"}])


@dataclass
class Outcome:
    """How a part went.

    Attributes:
        end: All objects of the namespace, without what differs from run to run.
        trouble: What did not hold: safety, liveness, silence, or a log that is not clean.
        after: The end of each detour that was taken, by its name: all objects again.
        refused: Why the API server refused a detour, by its name.
        ran: Working stages that did work.
        pods: How many pods ran, by working stage.
    """

    part: Part
    fault: Fault
    end: Json = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    after: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    trace: list[Point] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    told: list[tuple[Json, bool]] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    pods: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    seconds: float = 0.0
    log: str = ""

    @property
    def name(self) -> str:
        """Of the case."""
        return f"{self.part.name}, {self.fault.name}"


class Laboratory:
    """Everything that cases share: the API server, the kubelet and the zygote.

    Attributes:
        patience_seconds: How long anything may take to come about.

    Args:
        server: URL of the API server.
        folder: For logs and kubeconfigs.
        python_path: Source roots, the operator's among them.
        at_once: Cases side by side.
    """

    _numbers = itertools.count(1)

    def __init__(self, server: str, folder: Path, python_path: str, at_once: int = 8) -> None:
        self._server, self._folder = server, folder
        self.patience_seconds = 90.0
        self._limit = asyncio.Semaphore(at_once)
        self._session: aiohttp.ClientSession | None = None
        self._token = ""
        self._playing: asyncio.Task[None] | None = None
        self.api = AdminApi(server)
        self.zygote = Zygote(python_path)
        self.kubelet = LabKubelet(self.api)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Laboratory"]:
        """Run the shared parts."""
        authority = ssl.create_default_context(cafile=str(pki.ensure() / "ca.crt"))
        connector = aiohttp.TCPConnector(ssl=authority, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with (
            self.api,
            aiohttp.ClientSession(connector=connector, timeout=timeout) as self._session,
            self.zygote,
        ):
            self._token = await self._grant()
            await self.api.until_served(f"/apis/{GROUP}/{VERSION}/{PLURAL}")
            self._playing = playing = asyncio.create_task(self.kubelet.run())
            try:
                yield self
            finally:
                playing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await playing

    def check(self) -> None:
        """Raise what ended the kubelet, if anything did."""
        if self._playing is not None and self._playing.done():
            self._playing.result()

    async def live(self, part: Part, fault: Fault, zygote: Zygote | None = None) -> Outcome:
        """Lead an object through a part of its life under a fault.

        Args:
            part: What happens.
            fault: What goes wrong.
            zygote: Of another operator than the laboratory's own.
        """
        async with self._limit:
            namespace = f"life-{next(self._numbers)}"
            return await _Case(self, part, fault, namespace, zygote or self.zygote).live()

    async def _grant(self) -> str:
        """An account with the chart's rights everywhere; returns its token."""
        rbac, name = "rbac.authorization.k8s.io/v1", "fault-lab"
        account = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        metadata = {"name": name}
        base = f"/apis/{rbac}"
        for path, document in (
            (f"/api/v1/namespaces/default/serviceaccounts/{name}",
             {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            (f"{base}/clusterroles/{name}",
             {"apiVersion": rbac, "kind": "ClusterRole", "metadata": metadata,
              "rules": chart_rules()}),
            (f"{base}/clusterrolebindings/{name}",
             {"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": metadata,
              "roleRef": role, "subjects": [account]}),
        ):  # fmt: skip
            status, found = await self.api.apply(path, document)
            assert status < 300, found
        answer = await self.api.create(
            f"/api/v1/namespaces/default/serviceaccounts/{name}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
             "spec": {"expirationSeconds": 14400}},
        )  # fmt: skip
        return str(answer["status"]["token"])

    def operator(self, zygote: Zygote, url: str, namespace: str) -> Operator:
        """An operator of one namespace that reaches the API server at this URL."""
        folder = self._folder / namespace
        folder.mkdir(parents=True)
        kubeconfig = folder / "kubeconfig"
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": url}}],
            "users": [{"name": "operator", "user": {"token": self._token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "operator"}}],
        }  # fmt: skip
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(yaml.safe_dump(document))
        (port,) = free_ports(1)
        settings = IMAGES | QUICK | {"NAMESPACES": namespace}
        environment = {f"LORA_OPERATOR_{k}": v for k, v in settings.items()}
        return Operator(
            zygote, environment | {"KUBECONFIG": str(kubeconfig)},
            ["--health", f"http://127.0.0.1:{port}/healthz"], folder / "operator.log",
        )  # fmt: skip

    def proxy(self, watchman: Watchman) -> Proxy:
        """A proxy before the API server."""
        assert self._session is not None
        return Proxy(self._server, self._session, watchman)


class _Case:
    """One namespace, one operator, one fault."""

    def __init__(
        self, lab: Laboratory, part: Part, fault: Fault, namespace: str, zygote: Zygote
    ) -> None:
        self._lab, self._part, self._namespace = lab, part, namespace
        self._zygote = zygote
        self._place = lab.kubelet.places[namespace] = Place(CannedStages())
        self._watchman = Watchman(lab.api, namespace, NAME, self._place.stages)
        self._outcome = Outcome(part, fault)

    async def live(self) -> Outcome:
        """The whole case."""
        path, outcome, loop = "/api/v1/namespaces", self._outcome, asyncio.get_running_loop()
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        await self._lab.api.create(path, {"metadata": {"name": self._namespace, "labels": labels}})
        began = loop.time()
        async with self._lab.proxy(self._watchman) as proxy:
            proxy.operator = self._lab.operator(self._zygote, proxy.url, self._namespace)
            async with proxy.operator as operator:
                try:
                    await self._prepare(proxy)
                    for name, spec in self._part.detours.items():
                        await self._take_detour(name, spec)
                    await self._go_to_the_end()
                except TimeoutError as late:
                    outcome.trouble.append(f"never: {late}")
                outcome.restarts, outcome.log = operator.restarts, operator.log
        outcome.seconds = loop.time() - began
        await self._conclude()
        del self._lab.kubelet.places[self._namespace]
        return outcome

    async def _prepare(self, proxy: Proxy) -> None:
        """What was before this part, without any fault; the store has all results of it."""
        stages = self._place.stages
        if self._part.before is not None:
            stages.prepared = True
            await self._apply(good_spec(self._part.before))
            await self._until("True", "")
            await self._until_silent()
            stages.prepared = False
            for seen in (self._watchman.trace, self._watchman.counts, stages.pods, stages.ran):
                seen.clear()
        proxy.begin(self._outcome.fault)

    async def _go_to_the_end(self) -> None:
        await self._apply(good_spec(self._part.adapter))
        await self._until(*self._part.ready)
        await self._until_one_release()
        await self._until_silent()

    async def _take_detour(self, name: str, spec: Json) -> None:
        # Over an object that is there more is refused than of a new one: a null is a value then.
        status, found = await self._lab.api.apply(self._path(), _object_of(spec), dry_run=True)
        if status >= 300:
            self._outcome.refused[name] = str(found["message"])
            return
        try:
            await self._apply(spec)
            await self._poll(f"an answer to generation {self._generation}", self._is_seen)
            # What is denied is tried again and again, later and later; nothing else may happen.
            await self._until_silent(lambda: len(self._watchman.trace))
            await self._go_to_the_end()
        except TimeoutError as late:
            raise TimeoutError(f"{late}, with or after {name}") from late
        self._outcome.after[name] = await self._end_state()

    async def _apply(self, spec: Json) -> None:
        status, found = await self._lab.api.apply(self._path(), _object_of(spec))
        assert status < 300, found
        self._generation = found["metadata"]["generation"]

    def _is_seen(self) -> bool:
        conditions = self._place.status.get("conditions", ())
        return any(c.get("observedGeneration") == self._generation for c in conditions)

    async def _until(self, status: str, reason: str) -> None:
        """Until Ready is so for the newest generation."""

        def holds() -> bool:
            for c in self._place.status.get("conditions", ()):
                if c["type"] == "Ready" and c.get("observedGeneration") == self._generation:
                    return bool(c["status"] == status and reason in ("", c["reason"]))
            return False

        await self._poll(f"Ready={status} {reason} of generation {self._generation}", holds)

    async def _until_one_release(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._lab.patience_seconds
        while len(await self._items("/apis/apps/v1", "deployments")) != 1:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError("one Deployment is left")
            await asyncio.sleep(0.3)

    async def _until_silent(self, writes: Callable[[], int] | None = None) -> None:
        """Until whole looks found nothing to write, or nothing of what is counted.

        Time alone would prove nothing on a busy machine: what shall act may not have had its turn.
        """
        count, watchman = writes or (lambda: self._watchman.tried), self._watchman
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._lab.patience_seconds
        before, since, looks = count(), loop.time(), watchman.looks
        while loop.time() - since < QUIET_SECONDS or watchman.looks < looks + QUIET_LOOKS:
            if loop.time() > deadline:
                raise TimeoutError(f"silence; last was {watchman.trace[-3:]}")
            await asyncio.sleep(0.2)
            if count() != before or await self._has_work():
                before, since, looks = count(), loop.time(), watchman.looks

    async def _has_work(self) -> bool:
        """Whether a Job has not ended, be it that its pod is still to come."""
        if self._lab.kubelet.is_busy(self._namespace):
            return True
        return any(is_unfinished(j) for j in await self._items("/apis/batch/v1", "jobs"))

    async def _poll(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + self._lab.patience_seconds
        while not holds():
            self._lab.check()
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{what}; it is {told(self._place.status)}")
            await asyncio.sleep(0.1)

    async def _conclude(self) -> None:
        outcome, watchman, stages = self._outcome, self._watchman, self._place.stages
        outcome.trouble += watchman.violations
        outcome.trace, outcome.counts = watchman.trace, watchman.counts
        outcome.told, outcome.ran = watchman.told, stages.ran
        outcome.pods = {stage: len(uids) for stage, uids in stages.pods.items()}
        outcome.end = await self._end_state()
        bad_words = ["inconsistencies", "Task exception was never retrieved"]
        if not outcome.fault.restarts:  # where a watch ends the process, kopf tells why
            bad_words.append("Traceback")
        for bad in bad_words:
            if bad in outcome.log:
                start = outcome.log.index(bad)
                outcome.trouble.append(f"the log has {outcome.log[start : start + 3000]}")

    async def _end_state(self) -> Json:
        found: Json = {}
        verify = f"labelSelector={LABEL_STAGE}=verify"
        masks = {
            job["metadata"]["annotations"][ANNOTATION_INPUT_HASH]: "<of the Deployment's uid>"
            for job in await self._items("/apis/batch/v1", f"jobs?{verify}")
        }
        for prefix, plural in (
            (f"/apis/{GROUP}/{VERSION}", PLURAL), ("/apis/batch/v1", "jobs"),
            ("/apis/apps/v1", "deployments"), ("/api/v1", "services"),
        ):  # fmt: skip
            items = [_essence(i, plural, masks) for i in await self._items(prefix, plural)]
            found[plural] = sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
        return found

    async def _items(self, prefix: str, plural: str) -> list[Json]:
        return await self._lab.api.items(f"{prefix}/namespaces/{self._namespace}/{plural}")

    def _path(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self._namespace}/{PLURAL}/{NAME}"


def _object_of(spec: Json) -> Json:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": NAME}, "spec": spec}


def _essence(document: Json, plural: str, masks: Mapping[str, str]) -> Json:
    """What is the same in every fault-free run."""
    metadata = document["metadata"]
    kept: Json = {
        "name": metadata["name"],
        "labels": metadata.get("labels", {}),
        # The hash of an intent is of one that names the namespace; the intent itself is compared.
        "annotations": {
            key: value
            for key, value in metadata.get("annotations", {}).items()
            if key != ANNOTATION_SPEC_HASH
        },
        "finalizers": metadata.get("finalizers", []),
        "generation": metadata.get("generation") if plural != "services" else None,
        "spec": document.get("spec"),
    }
    status = document.get("status", {})
    if plural == PLURAL:
        kept["status"] = status
    elif plural == "services":
        kept["spec"] = {k: v for k, v in kept["spec"].items() if not k.startswith("clusterIP")}
    elif plural == "jobs":
        kept["spec"] = {"parallelism": kept["spec"].get("parallelism")}
        kept["status"] = [c["type"] for c in status.get("conditions", ())]
        kept["labels"] = {k: v for k, v in kept["labels"].items() if k.startswith(GROUP)}
    text = json.dumps(kept)
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    for secret, mask in masks.items():
        text = text.replace(secret, mask)
    masked: Json = json.loads(text)
    return masked
