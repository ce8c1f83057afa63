"""A crowd of objects on a real API server, and when what happened to each."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import aiohttp

from builders import spec_document
from faultlab.adminapi import AdminApi
from lora_api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from lora_api.naming import LABEL_NAME

Json = dict[str, Any]
Key = tuple[str, str]
Answer = TypeVar("Answer")
AT_ONCE = 16
"""Requests of the crowd's own in flight."""


@dataclass
class Story:
    """Of one object; seconds on one clock, as watches told them.

    Attributes:
        created: When the API server answered the POST.
        seen: First conditions.
        ready: Ready=True.
        jobs: When each Job was there.
        ended: When each Job's pod had ended.
    """

    created: float
    seen: float | None = None
    ready: float | None = None
    jobs: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def handovers(self) -> Iterator[float]:
        """Seconds from the end of each Job's pod to the next Job."""
        for (before, _), (_, there) in pairwise(sorted(self.jobs.items(), key=lambda j: j[1])):
            if before in self.ended:
                yield max(0.0, there - self.ended[before])


class Crowd:
    """Creates objects and follows them."""

    def __init__(self, api: AdminApi, namespaces: Sequence[str]) -> None:
        self._api, self._namespaces = api, namespaces
        self.stories: dict[Key, Story] = {}
        self._early: defaultdict[Key, list[Callable[[Story], None]]] = defaultdict(list)

    async def prepare(self) -> None:
        """The namespaces, with the account that pods need."""
        await in_turns(
            partial(self._api.create, "/api/v1/namespaces", {"metadata": {"name": name}})
            for name in self._namespaces
        )
        for namespace in self._namespaces:
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
            while await self._api.find(path) is None:
                await asyncio.sleep(0.1)

    async def add(self, numbers: range) -> list[Story]:
        """Create objects, each with an adapter of its own, so that nothing is there already."""
        return await in_turns(partial(self._add, number) for number in numbers)

    async def _add(self, number: int) -> Story:
        key = self.key(number)
        spec = spec_document(adapters=[{"uri": f"s3://models/adapter-{number}"}])
        await self._api.create(
            f"/apis/{GROUP}/{VERSION}/namespaces/{key[0]}/{PLURAL}",
            {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": key[1]}, "spec": spec},
        )
        story = self.stories[key] = Story(created=time.monotonic())
        for note in self._early.pop(key, ()):
            note(story)
        return story

    async def change(self, number: int, adapter: str) -> Story:
        """Ask for another adapter; the object is not ready until that one serves."""
        story = self.stories[self.key(number)]
        story.ready = None
        spec = spec_document(adapters=[{"uri": f"s3://models/{adapter}"}])
        await self._api.merge(self._path(number), {"spec": {"adapters": spec["adapters"]}})
        return story

    async def remove(self, number: int) -> None:
        """Delete an object, and with it what it owns."""
        await self._api.delete(self._path(number))
        del self.stories[self.key(number)]

    async def lose_job(self, number: int) -> None:
        """Delete one Job of an object, if it has any, as by hand."""
        namespace, name = self.key(number)
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        for job in (await self._api.items(f"{path}?labelSelector={LABEL_NAME}={name}"))[:1]:
            await self._api.delete(f"{path}/{job['metadata']['name']}")

    async def wipe_status(self, number: int) -> None:
        """Forget all that an object's status says."""
        await self._api.merge(f"{self._path(number)}/status", {"status": None})

    async def versions(self) -> dict[str, str]:
        """The resourceVersion of every object and of what the operator made for it, by path."""
        found: dict[str, str] = {}
        for kind in (f"/apis/{GROUP}/{VERSION}/{PLURAL}", "/apis/batch/v1/jobs", "/api/v1/services",
                     "/apis/apps/v1/deployments"):  # fmt: skip
            selector = "" if kind.endswith(PLURAL) else f"?labelSelector={LABEL_NAME}"
            for item in await self._api.items(f"{kind}{selector}"):
                place = item["metadata"]
                found[f"{kind} {place['namespace']}/{place['name']}"] = place["resourceVersion"]
        return found

    def key(self, number: int) -> Key:
        """Namespace and name."""
        return (self._namespaces[number % len(self._namespaces)], f"model-{number}")

    def _path(self, number: int) -> str:
        namespace, name = self.key(number)
        return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}"

    async def follow(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(f"/apis/{GROUP}/{VERSION}/{PLURAL}", "", self._object))
            group.create_task(self._watch("/apis/batch/v1/jobs", LABEL_NAME, self._job))
            group.create_task(self._watch("/api/v1/pods", LABEL_NAME, self._pod))

    async def _watch(self, path: str, selector: str, tell: Callable[[Json, float], None]) -> None:
        version = (await self._api.get(f"{path}?labelSelector={selector}"))["metadata"]
        url = f"{path}?watch=1&labelSelector={selector}&resourceVersion="
        last = version["resourceVersion"]
        while True:
            try:
                async with self._api.stream(url + last) as response:
                    while line := await response.content.readline():
                        event = json.loads(line)
                        last = event["object"]["metadata"]["resourceVersion"]
                        tell(event["object"], time.monotonic())
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)

    def _note(self, key: Key, note: Callable[[Story], None]) -> None:
        if key in self.stories:
            note(self.stories[key])
        else:
            self._early[key].append(note)  # the watch was faster than the answer

    def _object(self, found: Json, now: float) -> None:
        conditions = found.get("status", {}).get("conditions", ())
        wanted = ("Ready", "True", found["metadata"]["generation"])
        is_ready = any(
            (c["type"], c["status"], c["observedGeneration"]) == wanted for c in conditions
        )

        def note(story: Story) -> None:
            story.seen = story.seen or (now if conditions else None)
            story.ready = story.ready or (now if is_ready else None)

        self._note(_key(found, found["metadata"]["name"]), note)

    def _job(self, job: Json, now: float) -> None:
        name = job["metadata"]["name"]

        def note(story: Story) -> None:
            story.jobs.setdefault(name, now)

        self._note(_owner(job), note)

    def _pod(self, pod: Json, now: float) -> None:
        job = pod["metadata"]["labels"].get("batch.kubernetes.io/job-name", "")

        def note(story: Story) -> None:
            story.ended.setdefault(job, now)

        if job and pod.get("status", {}).get("phase") == "Succeeded":
            self._note(_owner(pod), note)


async def in_turns(work: Iterable[Callable[[], Coroutine[Any, Any, Answer]]]) -> list[Answer]:
    """All of it, a few at once."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(task: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        async with limit:
            return await task()

    return list(await asyncio.gather(*(one(task) for task in work)))


def _key(found: Json, name: str) -> Key:
    return (found["metadata"]["namespace"], name)


def _owner(child: Json) -> Key:
    return _key(child, child["metadata"]["labels"][LABEL_NAME])
