"""How long answers are that nobody cuts to a length."""

from pathlib import Path
from typing import Any

import pytest

from lora_api.estimates import ANSWER_TOKENS, comparison
from lora_api.gates import BASE, MERGED, QUANTIZED
from lora_jobs.conditiontable import condition_rows
from lora_jobs.datasets.records import read_records
from lora_jobs.evaluating.freerunning import (
    free_running_looks,
    is_in_loop,
    length_note,
    length_rows,
)
from tinyllama import write_llama, write_texts

PROMPTS = ("Record 1:", "and", "Record 2: the")


def looked(**tokens: list[int]) -> dict[str, dict[str, Any]]:
    return {condition: {"tokens": found, "room": 64} for condition, found in tokens.items()}


def test_a_model_that_rambles_is_told_with_its_share_and_with_what_was_cut_off() -> None:
    note = length_note(looked(merged=[10, 20, 30, 20], quantized=[10, 64, 30, 20]))
    assert "quantized writes 155% of merged's tokens, OUTSIDE of the 90% to 110%" in note
    assert "1 of its answers were cut off at 64" in note
    assert ", within the 90% to 110%" in length_note(looked(merged=[20], quantized=[21]))


@pytest.mark.parametrize(
    ("answer", "is_loop"),
    [
        ([0] * 16, True),
        ([5, 6, 7] + [0] * 16, True),
        ([9] + [1, 2, 3, 4] * 4, True),
        ([0] * 15, False),
        ([0] * 15 + [1], False),
        (list(range(16)), False),
        ([1, 2, 3, 4, 5] * 4, False),
        ([], False),
    ],
    ids=str,
)
def test_an_answer_that_ends_in_one_phrase_over_and_over_is_in_a_loop(
    answer: list[int], is_loop: bool
) -> None:
    assert is_in_loop(answer) is is_loop


def test_answers_in_a_loop_are_told_where_both_models_were_looked_at_for_them() -> None:
    both = looked(merged=[20, 20], quantized=[20, 64])
    assert "loop" not in length_note(both)
    both["merged"]["loops"], both["quantized"]["loops"] = 0, 1
    assert length_note(both).endswith("; 1 end in a loop, of merged 0")


def test_what_was_not_asked_or_says_nothing_has_no_share() -> None:
    assert length_note(looked(merged=[3], base=[3])) == ""
    assert "ends at once" in length_note(looked(merged=[0, 0], quantized=[3, 3]))
    rows = length_rows(looked(merged=[0, 0], quantized=[3, 3]))
    assert list(rows) == [ANSWER_TOKENS]
    assert length_rows({}) == {}


def test_lengths_are_compared_prompt_by_prompt_and_stand_in_the_table() -> None:
    base, merged = [10 + n % 5 for n in range(32)], [20 + n % 7 for n in range(32)]
    rows = length_rows(looked(base=base, merged=merged, quantized=[n + 1 for n in merged]))
    row = rows[comparison(ANSWER_TOKENS, QUANTIZED, MERGED)]
    assert float(row["lower"]) <= sum(n + 1 for n in merged) / sum(merged) <= float(row["upper"])
    assert row["documents"] == "32"
    assert rows[ANSWER_TOKENS][MERGED] == f"{sum(merged) / 32:.2f}"
    assert comparison(ANSWER_TOKENS, MERGED, BASE) in rows
    shown = {r.label: r for r in condition_rows(rows)}["Tokens of an answer, free"]
    assert shown.cells[0] == f"{sum(base) / 32:.1f}"
    assert "%" in shown.interval


@pytest.mark.model
def test_an_answer_is_as_long_as_token_by_token_and_the_token_that_ends_it_is_none_of_it(
    tmp_path: Path,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from lora_jobs.evaluating.answering import greedy_answers
    from lora_jobs.pretrained import load_tokenizer

    folder = write_llama(tmp_path / "base")
    tokenizer: Any = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = [tuple(tokenizer(text).input_ids) for text in PROMPTS]
    said = []
    for prompt in prompts:  # token by token, without a cache
        ids = list(prompt)
        for _ in range(8):
            with torch.inference_mode():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        said.append(ids[len(prompt) :])
    assert greedy_answers(model, prompts, 8, None) == said
    end = said[0][3]
    cut = [s[: s.index(end)] if end in s else s for s in said]
    assert len(cut[0]) < 8
    assert greedy_answers(model, prompts, 8, end) == cut


@pytest.mark.model
def test_records_are_asked_until_twice_their_longest_completion_and_plain_texts_never(
    tmp_path: Path,
) -> None:
    import json

    import torch
    from transformers import AutoModelForCausalLM

    from lora_jobs.pretrained import load_tokenizer

    folder = write_llama(tmp_path / "base")
    tokenizer: Any = load_tokenizer(folder)
    completion = " ".join(["Record"] * 12)
    lines = [{"prompt": prompt, "completion": completion} for prompt in PROMPTS]
    file = tmp_path / "task.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    [look] = free_running_looks(read_records(file, name="task"), tokenizer, {"set": "s"})
    room = 2 * len(tokenizer(completion, add_special_tokens=False).input_ids)
    document = look.ask(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    assert document["room"] == look.key["room"] == room
    assert len(document["tokens"]) == len(PROMPTS)
    assert all(0 <= n <= room for n in document["tokens"])
    assert 0 <= document["loops"] <= len(PROMPTS)
    texts = read_records(write_texts(tmp_path / "plain.jsonl", "one", "two"), name="task")
    assert free_running_looks(texts, tokenizer, {}) == []
