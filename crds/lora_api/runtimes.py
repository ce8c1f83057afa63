"""Serving engines as data: how each is started, asked and what it can do.

The operator builds the Deployment from this table and the benchmark starts the same command, so
that what was measured is what serves. Nothing branches on the name of a runtime; it asks for a
capability.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

SERVING_PORT = 8000
"""Port of the engine's container, in every release; the Service's own port is the user's choice."""


class Runtime(StrEnum):
    """Engines that work."""

    VLLM = "VLLM"
    TRANSFORMERS = "Transformers"


@dataclass(frozen=True)
class RuntimeRecipe:
    """One engine.

    Attributes:
        command: argv; `{model}`, `{name}` and `{port}` are filled in.
        adapter_args: argv that adds one dynamic adapter, `{adapter}` its folder; empty: cannot.
        adapter_name: what a request's `model` says to reach the adapter.
        request_model: what a request's `model` says to reach the model itself.
        benchmark_args: the fixed overlay of a measurement, in every condition.
        env: variables the engine needs, in pods and in benchmarks.
        health_path: answers 200 once the engine can serve.
        shared_memory_bytes: size of a memory-backed /dev/shm, 0 for none.
        counts_usage: the stream's last chunk carries token counts.
        ignores_eos: a request can lock the output length.
        gives_logprobs: teacher-forced log-probabilities of a prompt can be asked for.
    """

    command: tuple[str, ...]
    request_model: str
    adapter_args: tuple[str, ...] = ()
    adapter_name: str = ""
    benchmark_args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    shared_memory_bytes: int = 0
    counts_usage: bool = False
    ignores_eos: bool = False
    gives_logprobs: bool = False


RECIPES: dict[Runtime, RuntimeRecipe] = {
    Runtime.VLLM: RuntimeRecipe(
        command=(
            "python3", "-m", "vllm.entrypoints.openai.api_server",
            "--model", "{model}", "--served-model-name", "{name}",
            "--host", "0.0.0.0", "--port", "{port}",  # noqa: S104 - pods are reached by their IP
        ),
        request_model="{name}",
        adapter_args=("--enable-lora", "--lora-modules", "adapter={adapter}"),
        adapter_name="adapter",
        benchmark_args=("--no-enable-prefix-caching", "--seed", "0"),
        env={"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        shared_memory_bytes=1 << 30,
        counts_usage=True,
        ignores_eos=True,
        gives_logprobs=True,
    ),
    Runtime.TRANSFORMERS: RuntimeRecipe(
        command=(
            "transformers", "serve", "{model}",
            "--host", "0.0.0.0", "--port", "{port}",  # noqa: S104 - pods are reached by their IP
        ),
        request_model="{model}",
        env={"HF_HUB_OFFLINE": "1"},
    ),
}  # fmt: skip

RESERVED_FLAGS = (
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--enable-lora",
    "--lora-modules",
    "--trust-remote-code",
    "--enable-prefix-caching",
    "--no-enable-prefix-caching",
    "--quantization",
    "--load-format",
    "--api-key",
)


def reserved_flag_in(args: Iterable[str]) -> str:
    """The first argument that is, or abbreviates, a reserved flag; empty when there is none.

    Engines parse with argparse: `_` reads as `-`, `--x=y`, `--x.y` and unique prefixes are taken.
    The CRD's CEL rule on `serving.args` says the same; a contract test compares them.
    """
    for arg in args:
        flag = arg.split(" ")[0].split("=")[0].split(".")[0].replace("_", "-")
        if flag.startswith("--") and any(r.startswith(flag) for r in RESERVED_FLAGS):
            return arg
    return ""
