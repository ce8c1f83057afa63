"""Evaluation sets: read, tokenized once, cut into windows that all conditions are scored on.

The tokenizer is the merged model's, which is what serves. A base model whose vocabulary covers the
token ids is scored on them, so its numbers are like the others'. Where it does not, because the
adapter comes with a larger tokenizer, it reads the same text with its own.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_api.digests import digest_of
from lora_api.jobcontract import Reason
from lora_api.spec import LossOn
from lora_jobs.datasets.records import RecordSet
from lora_jobs.datasets.tokens import tokenize
from lora_jobs.errors import Refused
from lora_jobs.evaluating.measure import EvaluationSet, set_key
from lora_jobs.evaluating.windows import Window, cut_windows
from lora_jobs.pretrained import load_tokenizer, refuse_beyond_positions


@dataclass(frozen=True)
class Protocol:
    """What decides a number besides models and sets; part of every key."""

    context_length: int
    dtype: str
    tokenizer: str
    """SHA-256 of tokenizer.json, and of the chat template."""
    template: str
    bos: str


def protocol_of(model: Path, tokenizer: Any, dtype: str, context_length: int) -> Protocol:
    """The protocol under the model's tokenizer.

    Raises:
        Refused: The context is longer than the model's positions.
    """
    refuse_beyond_positions(model, context_length, "evaluation.contextLength")
    file = model / "tokenizer.json"
    return Protocol(
        context_length=context_length,
        dtype=dtype,
        tokenizer=hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
        template=digest_of(tokenizer.chat_template or ""),
        bos="added" if adds_bos(tokenizer) else "none",
    )


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a BOS before plain text."""
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def evaluation_set(
    name: str,
    records: RecordSet,
    digest: str,
    loss_on: LossOn,
    tokenizer: Any,
    protocol: Protocol,
) -> EvaluationSet:
    """The windows of a set.

    Args:
        name: task or general.
        records: What was read.
        digest: Identity of the set's files; empty by hand.
        loss_on: Which tokens of a record count.
        tokenizer: The merged model's.
        protocol: Its context length cuts the windows.

    Raises:
        Refused: Nothing of the set can be scored.
    """

    def cut_for(model: Path) -> list[Window]:
        own = tokenize(records, load_tokenizer(model), loss_on)
        return cut_windows(own, protocol.context_length)

    windows = cut_windows(tokenize(records, tokenizer, loss_on), protocol.context_length)
    if not windows:
        raise Refused(
            Reason.EMPTY_DATASET,
            f"data set {name} has no record with a token to score; are its completions empty?",
        )
    key = set_key(digest, windows, {**vars(protocol), "lossOn": loss_on.value})
    return EvaluationSet(name=name, windows=windows, key=key, cut_for=cut_for)
