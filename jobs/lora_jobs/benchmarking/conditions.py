"""The four conditions as engines are started for them: base, dynamic, merged, quantized.

They differ in the folder that is served, `dynamic` also in how the adapter is handed over. What an
engine or adapter cannot do is `NotApplicable` with the reason, never measured as something else.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.gates import CONDITIONS
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import RECIPES, RuntimeRecipe, ServeCommand, serve_command
from lora_jobs.benchmarking.engine import LOOPBACK

MODEL_NAME = "model"
ADAPTER_CONFIG = "adapter_config.json"


class NotApplicable(Exception):
    """This engine cannot serve the condition; `str()` says why."""


@dataclass(frozen=True)
class Condition:
    """One thing to measure.

    Attributes:
        name: One of `CONDITIONS`.
        model: Folder of the model.
        adapters: Folders of unmerged adapters, for `dynamic`.
    """

    name: str
    model: Path
    adapters: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in CONDITIONS:
            raise ValueError(f"{self.name} is no condition")


@dataclass(frozen=True)
class Served:
    """How a condition's engine is started, and what requests call the model."""

    command: ServeCommand
    request_model: str


def serve(condition: Condition, parameters: BenchmarkParameters, work: Path, port: int) -> Served:
    """The engine's command for a condition, with the overlay of a measurement.

    Args:
        condition: What to serve.
        parameters: The engine and the user's flags.
        work: A folder of this run's own; the model is linked into it.
        port: A free loopback port.

    Raises:
        NotApplicable: The engine cannot serve the adapter unmerged.
    """
    recipe = RECIPES[parameters.runtime]
    adapter = _only(condition.adapters)
    folder = work / MODEL_NAME
    embedded = adapter is not None and recipe.embeds_adapter
    _link(condition.model, folder, adapter if embedded else None)
    command = serve_command(
        parameters.runtime,
        str(folder),
        MODEL_NAME,
        port,
        parameters.args,
        parameters.env,
        parameters.accelerator,
        LOOPBACK,
    )
    added: list[str] = []
    if adapter and not embedded:
        added = _adapter_args(recipe, adapter)
    argv = [*command.argv, *added, *recipe.benchmark_args]
    served = ServeCommand(argv, command.env, command.working_dir)
    return Served(served, recipe.adapter_name if added else MODEL_NAME)


def _only(adapters: tuple[Path, ...]) -> Path | None:
    if len(adapters) > 1:
        raise NotApplicable(f"the engine serves one adapter at a time, not {len(adapters)}")
    return adapters[0] if adapters else None


def _link(model: Path, folder: Path, adapter: Path | None) -> None:
    """The model under the name that requests use; with an adapter, the two in one folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if adapter is None:
        folder.symlink_to(model.resolve(), target_is_directory=True)
        return
    folder.mkdir()
    files = {f.name: f for f in model.iterdir()}
    files |= {f.name: f for f in adapter.glob("adapter_*")}
    for name, file in files.items():
        (folder / name).symlink_to(file.resolve())


def _adapter_args(recipe: RuntimeRecipe, adapter: Path) -> list[str]:
    if not recipe.adapter_args:
        raise NotApplicable("the engine serves no unmerged adapters")
    rank = adapter_rank(json.loads((adapter / ADAPTER_CONFIG).read_text()))
    fitting = [r for r in recipe.adapter_ranks if r >= rank]
    if not fitting:
        raise NotApplicable(f"the engine serves ranks up to {recipe.adapter_ranks[-1]}, not {rank}")
    filled = {"adapter": str(adapter.resolve()), "rank": min(fitting)}
    return [part.format(**filled) for part in recipe.adapter_args]


def adapter_rank(config: dict[str, Any]) -> int:
    """The largest rank in an adapter's config."""
    ranks = [config.get("r", 0), *(config.get("rank_pattern") or {}).values()]
    return max(int(rank) for rank in ranks)
