"""How it was measured, in sentences that follow from what was asked and recorded. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_api.jobcontract import Stage, StageCall, StageResult
from lora_api.line import recipes
from lora_api.parameters import method_of
from lora_api.report import Fact, Formula, SpeedRecord
from lora_api.spec import BaseWeights, Gptq, Spec, parse_spec
from lora_jobs.evaluating.scores import ANSWER_LENGTHS, OWN_TOKENIZER

FORMULAS = (
    Formula(metric="Perplexity", unit="1", formula="exp(mean negative log-likelihood per scored "
            "token); windows never cross documents; the same windows in every condition"),
    Formula(metric="Gain retained", unit="share",
            formula="(NLL base - NLL quantized) / (NLL base - NLL merged) on the task set"),
    Formula(metric="Tokens of an answer, free", unit="tokens",
            formula="mean length of greedy answers to the first prompts of the task set, until "
            "they end by themselves or at twice the longest completion"),
    Formula(metric="TTFT", unit="ms",
            formula="arrival of the first output token - request sent; median over a block's "
            "requests, geometric mean over blocks"),
    Formula(metric="TPOT", unit="ms",
            formula="(arrival of the last output token - arrival of the first) / (output tokens "
            "- 1); as TTFT over requests and blocks"),
    Formula(metric="Throughput", unit="output tokens/s",
            formula="output tokens of all clients / time from the first request sent to the last "
            "token"),
    Formula(metric="Open loop", unit="ms",
            formula="as TTFT, TPOT and latency, from the moment that a request came and not from "
            "when it was sent; quantiles over all requests, what was cut off being the longest"),
    Formula(metric="Goodput", unit="requests/s",
            formula="requests that met the objectives / time from the first arrival to the last "
            "token"),
    Formula(metric="Weights", unit="bytes", formula="sum of all tensors' bytes in the model's "
            "files; exact"),
    Formula(metric="Peak memory", unit="bytes", formula="sum over the engine's processes of the "
            "most main memory that each has had resident (VmHWM)"),
    Formula(metric="Interval of quality", unit="",
            formula="95 % over documents, paired: hull of CR2 (Satterthwaite) and bootstrap-t of "
            "the ratio of sums"),
    Formula(metric="Interval of speed", unit="",
            formula="95 % over blocks, paired: t interval of the log-ratios, nominal level 97 % "
            "since sampling stops when it is narrow enough"),
    Formula(metric="Claims", unit="",
            formula="as fast: two one-sided tests, the whole interval of the speed's ratio within "
            "the margin; slower: one, the whole interval below 1"),
    Formula(metric="Verdict", unit="",
            formula="Passed when the whole interval keeps the limit, Failed when the whole breaks "
            "it, else Inconclusive; the worst enforced gate decides"),
)  # fmt: skip


def protocol(
    done: Sequence[tuple[StageCall, StageResult]],
    candidate: str,
    spec: Mapping[str, Any],
    speed: SpeedRecord | None,
) -> list[Fact]:
    """What was done to get the numbers, stage by stage.

    Args:
        done: Finished stages.
        candidate: The recipe that was judged.
        spec: What was asked for; empty for a report by hand.
        speed: How speed was measured, if it was.
    """
    said = []
    if spec:
        asked = parse_spec(dict(spec))
        sets = "the task set" + (" and the general set" if asked.evaluation.general else "")
        said += [
            Fact(name="merge", text=_merge_text(asked)),
            Fact(name="quantization", text=_quantization_text(asked, candidate)),
            Fact(
                name="quality",
                text=f"Every condition reads the same windows of at most "
                f"{asked.evaluation.context_length} tokens of {sets}, in one runtime "
                "(transformers) and one type, so that no difference comes from the engine; "
                "differences are paired by document.",
            ),
        ]
    told = {name: text for c, r in _judged(done, candidate) for name, text in r.notes.items()}
    floor = {n: t for c, r in done if c.stage is Stage.BENCHMARK for n, t in r.notes.items()}
    said += [
        Fact(name=f"{name} set", text=f"{told[f'{name}Set']}.")
        for name in ("task", "general")
        if f"{name}Set" in told
    ]
    if OWN_TOKENIZER in told:
        said.append(Fact(name="tokenizers", text=f"{told[OWN_TOKENIZER]}."))
    if ANSWER_LENGTHS in told:
        said.append(Fact(name="answers", text=f"{told[ANSWER_LENGTHS]}."))
    if speed:
        said.append(Fact(name="speed", text=_speed_text(speed)))
    if "noiseFloor" in floor:
        said.append(Fact(name="noise floor", text=f"{floor['noiseFloor']}."))
    return said


def _merge_text(asked: Spec) -> str:
    adapters = len(asked.adapters)
    is_nf4 = asked.merge.base_weights is BaseWeights.DEQUANTIZED_NF4
    return (
        f"{'The adapter is' if adapters == 1 else f'{adapters} adapters are'} added to the base's "
        f"weights{', whose linear layers went through NF4 first,' if is_nf4 else ''} in 64-bit "
        "arithmetic with one rounding to the base's type."
    )


def _quantization_text(asked: Spec, candidate: str) -> str:
    recipe = next((r.low_bits for r in recipes(asked) if r.name == candidate), None)
    if recipe is None:
        return f"Recipe {candidate}: none; the merged model is what serves."
    rows = asked.quantization.used_calibration
    assert rows is not None  # else there is no recipe
    damping = f", damping {recipe.damping}" if isinstance(recipe, Gptq) else ""
    return (
        f"Recipe {candidate}: {method_of(recipe)}, {recipe.bits} bits, groups of "
        f"{recipe.group_size}{damping}; calibrated on {rows.samples} rows of "
        f"{rows.sequence_length} tokens that share no record with the evaluation sets."
    )


def _judged(
    done: Sequence[tuple[StageCall, StageResult]], candidate: str
) -> list[tuple[StageCall, StageResult]]:
    return [(c, r) for c, r in done if c.stage is Stage.EVALUATE and c.candidate == candidate]


def _speed_text(speed: SpeedRecord) -> str:
    blocks = "1 block" if speed.blocks == 1 else f"{speed.blocks} blocks"
    return (
        f"{speed.processes} engine processes in {blocks} of random order, each started fresh with "
        "the command that serves, prompt cache off; warm-up requests are thrown away; prompts are "
        "the same token ids for all, and every answer has the length that was asked for, counted "
        f"by the engine. {speed.repeatable_answers} answers were repeatable; pods must give them "
        "again before they serve."
    )
