"""The dashboard of the chart, drawn from its own queries: `make dashboard-picture`.

    python bench/operator/draw_dashboard.py docs/images/dashboard.svg [--minutes 5]

Not Grafana, which draws otherwise. The operator and its API server are real, and a real Prometheus
scrapes it; stage programs are played, take seconds and sometimes fail.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from busy_stages import BusyStages
from panels import Shown, draw
from stand import Stand, stand

from builders import spec_document
from canned_stages import BAD_ADAPTER
from localcluster.process import free_ports
from lora_api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from prometheus import scraping

NAMESPACES = ("search", "support")
SCRAPE_SECONDS = 2
EVERY_SECONDS = 10.0
BEGIN_SECONDS = 20.0
"""From the first object to the left edge of the picture."""


async def live(there: Stand, seconds: float) -> None:
    """An object every so often; some are removed again, some share an adapter."""
    ends, number = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        await add(there, number)
        if number >= 20 and number % 2 == 0:
            await there.api.delete(path_of(number - 20))
        number += 1
        await asyncio.sleep(EVERY_SECONDS)


async def add(there: Stand, number: int) -> None:
    """One object. Of ten, one has a bad adapter and two one that the namespace has met before."""
    adapter = f"adapter-{number - number % 10 + 2 if number % 10 in (0, 5) else number}"
    if number % 10 == 7:
        adapter = f"adapter-{number}-{BAD_ADAPTER}"
    changes = {"adapters": [{"uri": f"s3://models/{adapter}"}], "serving.accelerator": {}}
    path, name = path_of(number).rsplit("/", 1)
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
    await there.api.create(path, document | {"spec": spec_document(**changes)})


def path_of(number: int) -> str:
    """Of an object on the API server."""
    namespace = NAMESPACES[number // 10 % len(NAMESPACES)]
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/model-{number:03}"


async def look(folder: Path, minutes: float, pictures: Sequence[Path]) -> None:
    """Live, scrape, ask, draw."""
    shown_seconds = minutes * 60
    quick = {"BACKOFF_MIN_SECONDS": "5", "BACKOFF_MAX_SECONDS": "20", "PROGRESS_SECONDS": "5"}
    async with stand(folder, NAMESPACES, 30.0, BusyStages, **quick) as there:
        await asyncio.to_thread(there.subject.start)
        [port] = free_ports(1)
        with scraping(
            folder / "prometheus", port, there.subject.metrics_port, SCRAPE_SECONDS
        ) as prometheus:
            await there.while_it_stands(live(there, BEGIN_SECONDS + shown_seconds))
            shown = Shown(prometheus, time.time(), shown_seconds, SCRAPE_SECONDS)
            await asyncio.to_thread(draw, shown, pictures)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, nargs="+", help="SVG or PNG")
    parser.add_argument("--minutes", type=float, default=5.0, help="of the time axis")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(look(Path(folder), chosen.minutes, chosen.pictures))


if __name__ == "__main__":
    main()
