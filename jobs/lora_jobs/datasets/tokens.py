"""Records as token ids, and which of them count.

A record is tokenized as serving would see it: plain text and prompts with the tokenizer's special
tokens, conversations through the chat template, once, with nothing added to what it writes. So no
record starts with two BOS, whoever wrote the first one into the text or the template.

What counts is the completion, where a record has one: the text after the prompt, the assistant's
turns. A token that holds the end of the prompt and the start of the completion counts. No end
token is added to what the data has; a template's end-of-turn token is the turn's last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lora_api.jobcontract import Reason
from lora_api.spec import LossOn
from lora_jobs.datasets.records import (
    CompletionRecord,
    ConversationRecord,
    Place,
    Record,
    RecordSet,
    TextRecord,
)
from lora_jobs.errors import Refused

Span = tuple[int, int]
"""Characters from, and up to but without, of a rendered record."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    is_fast: bool
    chat_template: Any

    def __call__(self, text: str, **options: Any) -> Any:
        """Token ids, and the characters that each stands for."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """The conversation as the model reads it."""
        ...


@dataclass(frozen=True)
class TokenizedRecord:
    """One record: `counts[i]` says whether `token_ids[i]` is part of what is scored."""

    token_ids: tuple[int, ...]
    counts: tuple[bool, ...]


def tokenize(records: RecordSet, tokenizer: Tokenizer, loss_on: LossOn) -> list[TokenizedRecord]:
    """Every record as token ids; with loss on All, all of them count.

    Raises:
        Refused: The tokenizer cannot say which characters a token stands for, has no chat
            template for conversations, or its template fails on a record.
    """
    if not tokenizer.is_fast:
        raise Refused(
            Reason.INVALID_INPUT,
            f"the model's tokenizer has no tokenizer.json, so data set {records.name} cannot be "
            "aligned with its tokens; convert the tokenizer to the fast format",
        )
    return [_tokenize_one(record, tokenizer, loss_on) for record in records.records]


def _tokenize_one(record: Record, tokenizer: Tokenizer, loss_on: LossOn) -> TokenizedRecord:
    match record:
        case TextRecord():
            text, spans, special = record.text, [(0, len(record.text))], True
        case CompletionRecord():
            text = record.prompt + record.completion
            spans, special = [(len(record.prompt), len(text))], True
        case ConversationRecord():
            text, spans = _render(record, tokenizer)
            special = False
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids: list[int] = list(encoded["input_ids"])
    offsets: list[Span] = list(encoded["offset_mapping"])
    if ids[:2] == [tokenizer.bos_token_id] * 2:
        ids, offsets = ids[1:], offsets[1:]
    if loss_on is LossOn.ALL:
        spans = [(0, len(text))]
    return TokenizedRecord(tuple(ids), tuple(_within(offset, spans) for offset in offsets))


def _within(offset: Span, spans: Sequence[Span]) -> bool:
    """Whether a token shares a character with a span.

    Byte-level tokenizers trim offsets: a token of white space is the empty span behind it. A BOS
    that the tokenizer adds is the empty span at 0, which is behind no character.
    """
    start, end = offset
    if start == end:
        start -= 1
    return any(start < span_end and end > span_start for span_start, span_end in spans)


def prompt_of_turn(record: ConversationRecord, tokenizer: Tokenizer, turn: int) -> str:
    """What a model reads before it answers with the given turn.

    Raises:
        Refused: There is no chat template, or it fails on the record.
    """
    _check_template(record, tokenizer)
    return _apply_template(record, tokenizer, turn, prompt=True)


def _check_template(record: ConversationRecord, tokenizer: Tokenizer) -> None:
    if not tokenizer.chat_template:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{record.place}: the record is a conversation, and the model has no chat template; "
            "add chat_template.jinja to it, or use records with prompt and completion",
        )


def _render(record: ConversationRecord, tokenizer: Tokenizer) -> tuple[str, list[Span]]:
    """The conversation as text, and the spans of the assistant's turns in it."""
    _check_template(record, tokenizer)
    whole = _apply_template(record, tokenizer, len(record.messages), prompt=False)
    spans = []
    for turn, message in enumerate(record.messages):
        if message.role == "assistant" and turn >= record.prompt_turns:
            span = _turn_span(record, tokenizer, turn, whole)
            if span:
                spans.append(span)
    if not spans:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{record.place}: no assistant turn can be found in what the chat template writes; "
            "is there one?",
        )
    return whole, spans


def _turn_span(
    record: ConversationRecord, tokenizer: Tokenizer, turn: int, whole: str
) -> Span | None:
    """Where the assistant's turn stands, without the white space that templates end turns with.

    Some templates write a turn otherwise once another follows it (they drop its reasoning): then
    it is not what serving would produce at that point, and it does not count.
    """
    before = _apply_template(record, tokenizer, turn, prompt=True)
    after = _apply_template(record, tokenizer, turn + 1, prompt=False).rstrip()
    if not (after.startswith(before) and whole.startswith(after)):
        return None
    return len(before), len(after)


def _apply_template(
    record: ConversationRecord, tokenizer: Tokenizer, turns: int, *, prompt: bool
) -> str:
    messages = [{"role": m.role, "content": m.content} for m in record.messages[:turns]]
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # jinja's own and whatever a template raises
        raise _template_failed(record.place, error) from None
    return str(rendered)


def _template_failed(place: Place, error: Exception) -> Refused:
    kind = type(error).__name__
    return Refused(
        Reason.INVALID_INPUT,
        f"{place}: the model's chat template fails on the record ({kind}); "
        "are its roles in an order that the template admits?",
    )
