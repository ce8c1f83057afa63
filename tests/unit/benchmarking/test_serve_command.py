"""One command for pods and benchmarks, and how conditions differ in it."""

import json
from pathlib import Path

import pytest

from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import (
    RECIPES,
    Runtime,
    reserved_flag_in,
    serve_command,
    tensor_parallel_of,
)
from lora_jobs.benchmarking.conditions import Condition, NotApplicable, adapter_rank, serve
from lora_jobs.benchmarking.engine import Engine

VLLM, TRANSFORMERS = Runtime.VLLM, Runtime.TRANSFORMERS


def test_vllm_is_told_path_and_name() -> None:
    command = serve_command(VLLM, "/models/x", "x", 8000)
    assert command.argv[:3] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    assert command.argv[command.argv.index("--model") + 1] == "/models/x"
    assert command.argv[command.argv.index("--served-model-name") + 1] == "x"
    assert command.working_dir == ""
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_transformers_is_started_beside_the_folder_that_has_the_model_s_name() -> None:
    command = serve_command(TRANSFORMERS, "/models/org/x", "org/x", 8000)
    assert command.argv[:3] == ["transformers", "serve", "org/x"]
    assert command.working_dir == "/models/"
    with pytest.raises(ValueError, match="serves"):
        serve_command(TRANSFORMERS, "/models/model", "x", 8000)


def test_what_vllm_s_log_says_of_its_kernels_is_read(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "INFO [cuda.py:300] Using FLASH_ATTN attention backend out of potential backends: (...)\n"
        "INFO [gptq_marlin.py:260] Using MarlinLinearKernel for GPTQMarlinLinearMethod\n"
        "INFO [gptq_marlin.py:260] Using MarlinLinearKernel for GPTQMarlinLinearMethod\n"
        "INFO [cache.py:1] Using 4 threads for loading\n"
    )
    engine = Engine(serve_command(VLLM, "/m/x", "x", 1), 1, "/health", log)
    assert engine.kernels(RECIPES[VLLM].kernel_lines) == (
        "FLASH_ATTN attention backend", "MarlinLinearKernel for GPTQMarlinLinearMethod",
    )  # fmt: skip
    assert engine.kernels(RECIPES[TRANSFORMERS].kernel_lines) == ()


@pytest.mark.parametrize("runtime", list(Runtime))
def test_cpu_settings_go_with_cpus_only(runtime: Runtime) -> None:
    on_gpu = serve_command(runtime, "/m/x", "x", 1, accelerator="nvidia.com/gpu")
    assert "bfloat16" not in on_gpu.argv
    assert "cpu" not in on_gpu.argv
    assert not set(RECIPES[runtime].cpu_env) & set(on_gpu.env)
    assert "bfloat16" in serve_command(runtime, "/m/x", "x", 1).argv


@pytest.mark.parametrize("said", [["--dtype", "float32"], ["--dtype=float32"]])
def test_what_the_user_says_wins(said: list[str]) -> None:
    command = serve_command(VLLM, "/m/x", "x", 1, said, {"VLLM_CPU_KVCACHE_SPACE": "4"})
    assert "bfloat16" not in command.argv
    assert command.argv[-len(said) :] == said
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "4"


@pytest.mark.parametrize("runtime", list(Runtime))
def test_the_operator_s_own_flags_cannot_be_given(runtime: Runtime) -> None:
    recipe = RECIPES[runtime]
    free = {"--dtype", "--enforce-eager", "--seed", "--max-lora-rank"}
    parts = [*recipe.command, *recipe.adapter_args, *recipe.benchmark_args]
    parts += [part for flag in recipe.cpu_args for part in flag]
    for flag in {p for p in parts if p.startswith("--")} - free:
        assert reserved_flag_in([flag]), flag


def parameters(runtime: Runtime) -> BenchmarkParameters:
    return BenchmarkParameters(
        runtime=runtime, image="", accelerator="None", input_tokens=4, output_tokens=8,
        concurrency=[1], precision="5%", args=["--max-model-len", "512"],
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, names in ((base, ["config.json"]), (adapter, ["adapter_model.safetensors", "x"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 12, "rank_pattern": {"q": 20}}))
    return base, adapter


def test_vllm_gets_the_adapter_by_flags_with_a_rank_that_it_knows(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = files
    served = serve(Condition("dynamic", base, (adapter,)), parameters(VLLM), tmp_path / "w", port=1)
    argv = served.command.argv
    assert argv[argv.index("--max-lora-rank") + 1] == "32"
    assert f"adapter={adapter.resolve()}" in argv
    assert served.request_model == "adapter"
    assert argv[-3:] == ["--no-enable-prefix-caching", "--seed", "0"]


def test_transformers_gets_the_adapter_in_the_model_s_folder(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = files
    served = serve(
        Condition("dynamic", base, (adapter,)), parameters(TRANSFORMERS), tmp_path / "w", port=1
    )
    assert sorted(p.name for p in (tmp_path / "w" / "model").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "config.json",
    ]  # fmt: skip
    assert served.request_model == "model"


def test_without_an_adapter_the_model_is_served_without_a_word_of_one(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    # `--enable-lora` costs speed even unused.
    served = serve(Condition("base", files[0]), parameters(VLLM), tmp_path / "w", port=1)
    assert not [a for a in served.command.argv if "lora" in a]


def test_what_an_engine_cannot_serve_is_not_applicable(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = files
    with pytest.raises(NotApplicable, match="one adapter at a time, not 2"):
        serve(Condition("dynamic", base, (adapter, adapter)), parameters(VLLM), tmp_path / "a", 1)
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(NotApplicable, match="ranks up to 512"):
        serve(Condition("dynamic", base, (adapter,)), parameters(VLLM), tmp_path / "b", 1)


def test_the_largest_rank_counts() -> None:
    assert adapter_rank({"r": 8, "rank_pattern": {"q_proj": 64}}) == 64
    assert adapter_rank({"r": 8, "rank_pattern": None}) == 8


@pytest.mark.parametrize(
    ("args", "accelerators"),
    [
        ([], 1),
        (["--tensor-parallel-size=4"], 4),
        (["--tensor_parallel_size 2"], 2),
        (["--max-model-len", "2048", "-tp", "8"], 8),
        (["-tp=2", "--tp", "4"], 4),
        (["--tensor-parallel-size=many"], 1),
    ],
)
def test_the_arguments_say_over_how_many_accelerators_the_engine_splits_a_model(
    args: list[str], accelerators: int
) -> None:
    assert tensor_parallel_of(args) == accelerators
