"""How often `verify` catches what is not the model that passed: `make bench-verify`.

    python bench/verify/bench_verify.py [--runs 3]

A merged tiny model is measured as a benchmark does it, which records its answers. Then engines are
started on changed copies of it, and on the same one, each in a fresh process, and `verify` asks
them as it asks the pods of a release. What has chance in it is drawn anew for each run.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import rounded_cache
import torch
from safetensors.torch import load_file, save_file

import tiny_model
from lora_api.gates import BASE, QUANTIZED
from lora_api.jobcontract import Endpoint
from lora_api.parameters import BenchmarkParameters
from lora_api.runtimes import NO_ACCELERATOR, RECIPES, Runtime, ServeCommand
from lora_jobs.benchmarking.conditions import MODEL_NAME, Condition, serve
from lora_jobs.benchmarking.engine import Engine, free_port
from lora_jobs.benchmarking.expectations import Expectations
from lora_jobs.benchmarking.protocol import Limits, benchmark
from lora_jobs.benchmarking.results import expectations_of
from lora_jobs.errors import Refused
from lora_jobs.merging import merge_adapters
from lora_jobs.verifying import Expected, verify

PARAMETERS = BenchmarkParameters(
    runtime=Runtime.TRANSFORMERS, image="", args=[], accelerator=NO_ACCELERATOR,
    input_tokens=24, output_tokens=16, concurrency=[1], precision="5%",
)  # fmt: skip
Change = Callable[[Path, random.Random], None]
"""Changes a copy of the model's folder in place."""


@dataclass(frozen=True)
class Case:
    """One way to serve something else, or the same.

    Attributes:
        change: What is done to the copy.
        rounds_cache: The engine caches keys and values in 8 bits.
        args: The engine's flags.
    """

    name: str
    model: Path
    change: Change = lambda folder, source: None
    rounds_cache: bool = False
    args: tuple[str, ...] = ()


def noise(share: float) -> Change:
    """Normal noise on every matrix, `share` of its root mean square."""

    def change(folder: Path, source: random.Random) -> None:
        generator = torch.Generator().manual_seed(source.getrandbits(32))
        for file in folder.glob("*.safetensors"):
            tensors = load_file(file)
            for name, tensor in tensors.items():
                if tensor.ndim == 2:
                    exact = tensor.float()
                    drawn = torch.randn(exact.shape, generator=generator)
                    changed = exact + share * exact.square().mean().sqrt() * drawn
                    tensors[name] = changed.to(tensor.dtype)
            save_file(tensors, file, metadata={"format": "pt"})

    return change


def exchanged_ids(share: float) -> Change:
    """A tokenizer with some of its ordinary ids exchanged."""

    def change(folder: Path, source: random.Random) -> None:
        file = folder / "tokenizer.json"
        document = json.loads(file.read_text())
        vocabulary = document["model"]["vocab"]
        special = {token["content"] for token in document["added_tokens"]}
        words = [word for word in vocabulary if word not in special]
        chosen = source.sample(words, max(2, round(share * len(words))))
        ids = [vocabulary[word] for word in chosen]
        vocabulary |= dict(zip(chosen, ids[1:] + ids[:1], strict=True))
        file.write_text(json.dumps(document))

    return change


def other_template(folder: Path, source: random.Random) -> None:
    """A chat template that says something else first."""
    template = "Answer in one word. {% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)


def cases(merged: Path, wrong: Path) -> Iterator[Case]:
    """Everything that is tried."""
    base = tiny_model.ensure().base
    yield Case("the same artifact, fresh process", merged)
    yield Case("base instead of merged", base)
    yield Case("another adapter merged", wrong)
    for share in (0.1, 0.03, 0.01, 0.003, 0.001):
        yield Case(f"weights with {share:.1%} noise", merged, noise(share))
    for share in (0.1, 0.01):
        name = f"tokenizer, {share:.0%} of the ids exchanged"
        yield Case(name, merged, exchanged_ids(share))
    yield Case("another chat template", merged, other_template)
    yield Case("KV cache rounded to 8 bits (e4m3)", merged, rounds_cache=True)
    yield Case("float32 instead of bfloat16", merged, args=("--dtype", "float32"))


def recorded(merged: Path, work: Path) -> Expectations:
    """What the benchmark records of the merged model, beside base: one block."""
    conditions = [Condition(BASE, tiny_model.ensure().base), Condition(QUANTIZED, merged)]
    run = benchmark(conditions, PARAMETERS, Limits(0.05, 1), work, lambda progress: None)
    return expectations_of(run, artifact="")


def is_caught(case: Case, expectations: Expectations, seed: int, work: Path) -> bool:
    """Whether verify refuses a fresh engine of this case."""
    folder = work / "copy"
    shutil.copytree(case.model, folder)
    case.change(folder, random.Random(seed))
    port = free_port()
    parameters = PARAMETERS.model_copy(update={"args": list(case.args)})
    command = serve(Condition(QUANTIZED, folder), parameters, work / "run", port).command
    if case.rounds_cache:
        argv = [sys.executable, rounded_cache.__file__, *command.argv[1:]]
        command = ServeCommand(argv, command.env, command.working_dir)
    recipe, log = RECIPES[Runtime.TRANSFORMERS], work / "engine.log"
    expected = Expected(MODEL_NAME, recipe, expectations)
    with Engine(command, port, recipe.health_path, log) as engine:
        try:
            verify([Endpoint(pod="pod", url=engine.url)], expected, lambda progress: None)
        except Refused:
            caught = True
        else:
            caught = False
    if case.rounds_cache and rounded_cache.APPLIED not in log.read_text():
        raise RuntimeError("the engine did not use the cache that is rounded")
    return caught


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    runs = parser.parse_args().runs
    tiny = tiny_model.ensure()
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as folder:
        work = Path(folder)
        merged, wrong = work / "merged", work / "wrong"
        merge_adapters(tiny.base, [(tiny.adapter, 1.0)], merged, lambda progress: None)
        merge_adapters(tiny.base, [(tiny.wrong_adapter, 1.0)], wrong, lambda progress: None)
        expectations = recorded(merged, work / "recorded")
        print(
            f"{len(expectations.prompts)} answers repeatable, "
            f"{len(expectations.telling)} of them not the base's"
        )
        print("| served instead | refused |\n| --- | --- |")
        for case in cases(merged, wrong):
            caught = 0
            for run in range(runs):
                with tempfile.TemporaryDirectory(dir=work) as place:
                    caught += is_caught(case, expectations, run, Path(place))
            print(f"| {case.name} | {caught} of {runs} |", flush=True)


if __name__ == "__main__":
    main()
