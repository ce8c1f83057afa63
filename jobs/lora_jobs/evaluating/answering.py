"""Greedy answers of a loaded model, in batches of prompts of one length."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

MOST_TOKENS_CPU = 4096
MOST_TOKENS_ACCELERATOR = 32768
"""Prompts and answers of a batch together."""


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_tokens: int
) -> list[str]:
    """What the model answers to each prompt, without special tokens.

    Only prompts of equal length share a batch: padding would change what some models compute.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its Hugging Face tokenizer.
        prompts: Token ids, each at least one.
        max_tokens: Most tokens of an answer.
    """
    on_cpu = model.device.type == "cpu"
    most = MOST_TOKENS_CPU if on_cpu else MOST_TOKENS_ACCELERATOR
    end = tokenizer.eos_token_id
    answers = [""] * len(prompts)
    for batch in _of_one_length(prompts, most, max_tokens):
        ids = torch.tensor([list(prompts[i]) for i in batch]).to(model.device)
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens,
                do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=end,
            )  # fmt: skip
        for index, answer in zip(batch, made[:, ids.shape[1] :].cpu().tolist(), strict=True):
            answers[index] = tokenizer.decode(answer, skip_special_tokens=True)
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
