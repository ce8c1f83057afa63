"""What one loaded model says of windows: losses, likely tokens. torch lives here and in `models`.

The forward pass runs in the model's own 16-bit type, as serving does; the log-softmax runs in fp32,
where its rounding is far below what is compared.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lora_jobs.evaluating.windows import Window, batches

MOST_TOKENS_CPU = 4096
MOST_TOKENS_ACCELERATOR = 16384
POSITIONS_AT_ONCE = 1024
"""Rows of logits that are widened to fp32 at a time: 0.6 GB at a vocabulary of 150,000."""

WindowsDone = Callable[[int], None]


def window_nlls(model: Any, windows: Sequence[Window], done: WindowsDone) -> list[float]:
    """The summed NLL, in nats, of the scored tokens of each window.

    Windows are padded on the right, where the causal mask hides the padding from every token that
    is scored, so no attention mask is needed.

    Args:
        model: A causal language model in evaluation mode.
        windows: What to score.
        done: Told how many windows are done, after each batch.
    """
    on_cpu = model.device.type == "cpu"
    most_tokens = MOST_TOKENS_CPU if on_cpu else MOST_TOKENS_ACCELERATOR
    nlls = [0.0] * len(windows)
    finished = 0
    for batch in batches(windows, most_tokens):
        for index, nll in zip(batch, _score(model, [windows[i] for i in batch]), strict=True):
            nlls[index] = nll
        finished += len(batch)
        done(finished)
    return nlls


def likely_tokens(
    model: Any, windows: Sequence[Window], kept: int
) -> tuple[list[list[int]], list[list[float]]]:
    """The most likely next tokens at every scored position, window by window.

    Args:
        model: A causal language model in evaluation mode.
        windows: A sample, small enough for its logits to be in memory window by window.
        kept: How many tokens of a position.

    Returns:
        Token ids and log-probabilities in nats, both (positions, kept), the likeliest first.
    """
    tokens: list[list[int]] = []
    logs: list[list[float]] = []
    for window in windows:
        ids, wanted = _padded(model, [window])
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1][wanted]
            found = torch.log_softmax(logits.float(), -1).topk(min(kept, logits.shape[-1]))
        tokens += found.indices.cpu().tolist()
        logs += found.values.cpu().tolist()
    return tokens, logs


def _padded(model: Any, windows: Sequence[Window]) -> tuple[Any, Any]:
    """Token ids on the model's device, the longest first, and which of `ids[:, 1:]` count."""
    length = len(windows[0].token_ids)
    ids = torch.zeros((len(windows), length), dtype=torch.long)
    scored = torch.zeros((len(windows), length), dtype=torch.bool)
    for row, window in enumerate(windows):
        ids[row, : len(window.token_ids)] = torch.tensor(window.token_ids)
        scored[row, : len(window.scored)] = torch.tensor(window.scored)
    return ids.to(model.device), scored[:, 1:].to(model.device)


def _score(model: Any, windows: Sequence[Window]) -> list[float]:
    nlls = _token_nlls(model, *_padded(model, windows))
    # Summed in float64 on the CPU: the same order and rounding on every device.
    counts = [window.scored_tokens for window in windows]
    return [float(part.sum()) for part in torch.split(nlls.double().cpu(), counts)]


def _token_nlls(model: Any, ids: Any, wanted: Any) -> Any:
    """NLL, in nats and fp32, of the wanted of `ids[:, 1:]`, row by row in one vector."""
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1][wanted]
        targets = ids[:, 1:][wanted]
        parts = [
            torch.nn.functional.cross_entropy(
                logits[at : at + POSITIONS_AT_ONCE].float(),
                targets[at : at + POSITIONS_AT_ONCE],
                reduction="none",
            )
            for at in range(0, len(targets), POSITIONS_AT_ONCE)
        ]
        return torch.cat(parts)
