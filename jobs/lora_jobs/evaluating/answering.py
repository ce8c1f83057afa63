"""Greedy answers of a loaded model, in batches of prompts of one length."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch

MOST_TOKENS_CPU = 4096
MOST_TOKENS_ACCELERATOR = 32768
"""Prompts and answers of a batch together."""


def greedy_answers(
    model: Any, prompts: Sequence[Sequence[int]], max_tokens: int, end: int | None
) -> list[list[int]]:
    """The token ids that the model answers to each prompt, without the one that ends it.

    Only prompts of equal length share a batch: padding would change what some models compute.

    Args:
        model: A causal language model in evaluation mode.
        prompts: Token ids, each at least one.
        max_tokens: Most tokens of an answer.
        end: The id of the token that ends an answer; None when there is none.
    """
    on_cpu = model.device.type == "cpu"
    most = MOST_TOKENS_CPU if on_cpu else MOST_TOKENS_ACCELERATOR
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in _of_one_length(prompts, most, max_tokens):
        ids = torch.tensor([list(prompts[i]) for i in batch]).to(model.device)
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens,
                do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=end,
            )  # fmt: skip
        for index, answer in zip(batch, made[:, ids.shape[1] :].cpu().tolist(), strict=True):
            answers[index] = list(takewhile(lambda token: token != end, answer))
    return answers


def _of_one_length(
    prompts: Sequence[Sequence[int]], most_tokens: int, max_tokens: int
) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for length, indices in sorted(by_length.items()):
        step = max(1, most_tokens // (length + max_tokens))
        yield from (indices[i : i + step] for i in range(0, len(indices), step))
