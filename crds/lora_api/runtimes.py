"""Serving engines as data: how each is started, asked and what it can do.

The operator builds the Deployment from this table and the benchmark starts the same command, so
that what was measured is what serves. Nothing branches on the name of a runtime; it asks for a
capability. Seen with vLLM 0.32 (CPU) and `transformers serve` 5.19.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

SERVING_PORT = 8000
"""Port of the engine's container, in every release; the Service's own port is the user's choice."""
NO_ACCELERATOR = "None"
"""`serving.accelerator.resource` of pods that run on CPUs."""


class Runtime(StrEnum):
    """Engines that work."""

    VLLM = "VLLM"
    TRANSFORMERS = "Transformers"


class LengthLock(StrEnum):
    """How a request makes an engine write exactly `max_tokens` tokens."""

    IGNORE_EOS = "ignore_eos"
    GENERATION_CONFIG = "generation_config"
    """A JSON string that stands for the model's generation config, with `min_new_tokens`."""


@dataclass(frozen=True)
class RuntimeRecipe:
    """One engine.

    Attributes:
        command: argv; `{model}`, `{name}`, `{host}` and `{port}` are filled in.
        length_lock: How output lengths are made equal.
        named_by_folder: The engine knows the model by the folder it is told, so that it is started
            beside it and told the name alone; the folder's last part must be the model's name.
        cpu_args: argv that is added on CPUs, unless the user's args name the same flag.
        cpu_env: variables that are added on CPUs.
        adapter_args: argv that adds one dynamic adapter; `{adapter}` is its folder, `{rank}` the
            first of `adapter_ranks` that it fits into.
        adapter_ranks: the largest ranks that the engine can be told.
        adapter_name: what a request's `model` says to reach the adapter.
        embeds_adapter: an adapter's files in the model's own folder are loaded unmerged.
        benchmark_args: the fixed overlay of a measurement, in every condition.
        env: variables the engine needs, in pods and in benchmarks.
        health_path: answers 200 once the engine can serve.
        shared_memory_bytes: size of a memory-backed /dev/shm, 0 for none.
        takes_token_ids: a prompt may be token ids, and answers name theirs.
        lists_models: `/v1/models` names what is served.
        prefix_cache_counters: in `/metrics`, tokens looked up in the prefix cache and found there.
        kernel_lines: a pattern of what the log says of the kernels that were chosen.
        gives_logprobs: teacher-forced log-probabilities of a prompt can be asked for.
    """

    command: tuple[str, ...]
    length_lock: LengthLock
    named_by_folder: bool = False
    cpu_args: tuple[tuple[str, ...], ...] = ()
    cpu_env: dict[str, str] = field(default_factory=dict)
    adapter_args: tuple[str, ...] = ()
    adapter_ranks: tuple[int, ...] = ()
    adapter_name: str = ""
    embeds_adapter: bool = False
    benchmark_args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    shared_memory_bytes: int = 0
    takes_token_ids: bool = False
    lists_models: bool = False
    kernel_lines: str = ""
    gives_logprobs: bool = False
    prefix_cache_counters: tuple[str, str] | None = None


RECIPES: dict[Runtime, RuntimeRecipe] = {
    Runtime.VLLM: RuntimeRecipe(
        # The `vllm` script of CPU builds looks for a distribution of another name.
        command=(
            "python3", "-m", "vllm.entrypoints.openai.api_server",
            "--model", "{model}", "--served-model-name", "{name}",
            "--host", "{host}", "--port", "{port}",
        ),
        length_lock=LengthLock.IGNORE_EOS,
        cpu_args=(("--dtype", "bfloat16"), ("--enforce-eager",)),
        # Without a compiler in the image, the first request that Dynamo compiles for ends the
        # engine. The cache's default takes half of the machine's memory.
        cpu_env={"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"},
        adapter_args=(
            "--enable-lora", "--max-lora-rank", "{rank}", "--lora-modules", "adapter={adapter}",
        ),
        adapter_ranks=(8, 16, 32, 64, 128, 256, 320, 512),
        adapter_name="adapter",
        benchmark_args=("--no-enable-prefix-caching", "--seed", "0"),
        env={"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        shared_memory_bytes=1 << 30,
        takes_token_ids=True,
        lists_models=True,
        gives_logprobs=True,
        # "Using FLASH_ATTN attention backend out of ...", "Using MarlinLinearKernel for
        # GPTQMarlinLinearMethod".
        kernel_lines=r"Using (\w+ (?:attention backend|for \w+(?:Method|Kernel|Experts)))\b",
        prefix_cache_counters=("vllm:prefix_cache_queries", "vllm:prefix_cache_hits"),
    ),
    Runtime.TRANSFORMERS: RuntimeRecipe(
        command=("transformers", "serve", "{model}", "--host", "{host}", "--port", "{port}"),
        length_lock=LengthLock.GENERATION_CONFIG,
        named_by_folder=True,
        cpu_args=(("--device", "cpu"), ("--dtype", "bfloat16")),
        # Threads that spin while they wait take the cores from those that work, where cores are
        # few or shared: measured 132 against 512 tokens/s under load.
        cpu_env={"OMP_WAIT_POLICY": "PASSIVE"},
        embeds_adapter=True,
        env={"HF_HUB_OFFLINE": "1"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ServeCommand:
    """How an engine's process is started.

    Attributes:
        argv: The program, found on PATH, and its arguments.
        env: What is added to the environment.
        working_dir: Where it is started; empty: anywhere.
    """

    argv: list[str]
    env: dict[str, str]
    working_dir: str = ""


def serve_command(
    runtime: Runtime,
    model_dir: str,
    model_name: str,
    port: int,
    args: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    accelerator: str = NO_ACCELERATOR,
    host: str = "0.0.0.0",  # noqa: S104 - pods are reached by their IP
) -> ServeCommand:
    """The one command line of an engine, in pods and in benchmarks alike.

    Args:
        runtime: The engine.
        model_dir: Absolute path of the model's folder; it ends with `/<model_name>`.
        model_name: What requests call the model.
        port: Where it listens.
        args: `serving.args`; they come after ours, so that they win.
        env: `serving.env`; it wins as well.
        accelerator: The extended resource, or `NO_ACCELERATOR`.
        host: Where it listens.

    Raises:
        ValueError: The engine takes the model's name from its folder, which has another one.
    """
    recipe, user_args = RECIPES[runtime], list(args)
    model, working_dir = model_dir, ""
    if recipe.named_by_folder:
        if not model_dir.endswith(f"/{model_name}"):
            raise ValueError(f"{runtime} serves {model_dir} under its last part, not {model_name}")
        model, working_dir = model_name, model_dir.removesuffix(model_name)
    filled = {"model": model, "name": model_name, "host": host, "port": port}
    argv = [part.format(**filled) for part in recipe.command]
    environment = dict(recipe.env)
    if accelerator == NO_ACCELERATOR:
        argv += [a for flag in recipe.cpu_args if not _names(user_args, flag[0]) for a in flag]
        environment |= recipe.cpu_env
    return ServeCommand(argv + user_args, environment | dict(env or {}), working_dir)


def _names(args: Iterable[str], flag: str) -> bool:
    return any(a.replace("_", "-").split("=")[0].split(" ")[0] == flag for a in args)


TENSOR_PARALLEL_FLAGS = ("--tensor-parallel-size", "-tp", "--tp", "--tp-size")
"""As vLLM and SGLang know it."""

RESERVED_FLAGS = (
    # What the operator sets.
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--device",
    "--enable-lora",
    "--lora-modules",
    "--enable-prefix-caching",
    "--no-enable-prefix-caching",
    "--quantization",
    "--load-format",
    "--api-key",
    # What would serve other bytes than those that were measured, or run code of its own.
    "--trust-remote-code",
    "--config",
    "--tokenizer",
    "--hf-config-path",
    "--hf-overrides",
    "--speculative-config",
    "--spec-model",
    "--middleware",
    "--logits-processors",
    "--tool-parser-plugin",
    "--reasoning-parser-plugin",
    "--io-processor-plugin",
    "--model-class-overrides",
    "--worker-cls",
    "--worker-extension-cls",
    "--scheduler-cls",
    # Where it listens, and how.
    "--uds",
    "--root-path",
    "--ssl-keyfile",
    "--ssl-certfile",
    "--grpc",
    "--headless",
)


def tensor_parallel_of(args: Iterable[str]) -> int:
    """Accelerators that the engine's arguments split the model over; 1 where they do not say.

    What is no number is the engine's to refuse.
    """
    words = [word for arg in args for word in arg.replace("=", " ", 1).split()]
    found = [
        value
        for flag, value in pairwise(words)
        if flag.replace("_", "-") in TENSOR_PARALLEL_FLAGS and value.isdecimal()
    ]
    return max(1, int(found[-1])) if found else 1


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
