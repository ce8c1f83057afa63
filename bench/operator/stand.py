"""Where the operator is measured: a real control plane, played nodes, and a crowd of objects."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from crowd import Crowd
from subject import Subject

from api_server import api_server
from canned_stages import CannedStages
from faultlab.adminapi import AdminApi
from faultlab.kubelet import LabKubelet, Place
from lora_api import GROUP, PLURAL, VERSION

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Stand:
    """All that is needed; the operator is not started.

    Attributes:
        plays: Tasks that play nodes and follow watches; none of them ends by itself.
    """

    api: AdminApi
    crowd: Crowd
    subject: Subject
    plays: Sequence["asyncio.Task[Any]"]

    async def while_it_stands(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do the work; an error of what is played ends it."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, *self.plays), return_when=asyncio.FIRST_COMPLETED)
            for play in self.plays:
                if play.done():
                    play.result()
            return await task
        finally:
            task.cancel()


@asynccontextmanager
async def stand(
    folder: Path,
    namespaces: Sequence[str],
    resync_seconds: float,
    stages: Callable[[], CannedStages] = CannedStages,
    **settings: str,
) -> AsyncIterator[Stand]:
    """Start it, and end all of it, the operator too.

    Args:
        folder: For files and logs.
        namespaces: Where objects will be.
        resync_seconds: Longest time between two looks at an object.
        stages: Plays the stage programs of one namespace.
        settings: Of the operator, without `LORA_OPERATOR_`.
    """
    with api_server(folder / "control-plane") as plane:
        async with AdminApi(plane.server) as api:
            crowd, kubelet = Crowd(api, namespaces), LabKubelet(api, in_step=False)
            kubelet.places.update({name: Place(stages()) for name in namespaces})
            await api.until_served(f"/apis/{GROUP}/{VERSION}/{PLURAL}")
            await crowd.prepare()
            subject = Subject(plane.kubeconfig, folder, resync_seconds, **settings)
            plays = [asyncio.create_task(t) for t in (kubelet.run(), crowd.follow())]
            try:
                yield Stand(api, crowd, subject, plays)
            finally:
                subject.kill()
                for play in plays:
                    play.cancel()
                await asyncio.gather(*plays, return_exceptions=True)
