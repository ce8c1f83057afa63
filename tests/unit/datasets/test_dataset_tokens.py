"""Records as the model reads them: one BOS, the template once, completions marked."""

from typing import Any

import pytest

from lora_api.jobcontract import Reason
from lora_api.spec import LossOn, RecordFormat
from lora_jobs.datasets.records import (
    CompletionRecord,
    ConversationRecord,
    Message,
    Place,
    Record,
    RecordSet,
    TextRecord,
)
from lora_jobs.datasets.tokens import TokenizedRecord, tokenize
from lora_jobs.errors import Refused
from tinyllama import byte_tokenizer

PLACE = Place("task.jsonl", 1)
CHAT = (
    Message("user", "what is a merge?"),
    Message("assistant", "adding the delta"),
    Message("user", "and then?"),
    Message("assistant", "quantization"),
)


@pytest.fixture(scope="module", params=["plain offsets", "trimmed offsets"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return byte_tokenizer(trims=request.param == "trimmed offsets")


def one(record: Record, tokenizer: Any, loss_on: LossOn = LossOn.COMPLETIONS) -> TokenizedRecord:
    (tokenized,) = tokenize(RecordSet("task", RecordFormat.AUTO, (record,)), tokenizer, loss_on)
    return tokenized


def marked(tokenized: TokenizedRecord, tokenizer: Any) -> str:
    ids = [i for i, c in zip(tokenized.token_ids, tokenized.counts, strict=True) if c]
    return str(tokenizer.decode(ids))


def test_every_token_of_a_text_counts_but_the_bos(tokenizer: Any) -> None:
    tokenized = one(TextRecord(PLACE, "\n\n  a line\n\n\tand another  \n"), tokenizer)
    assert tokenized.token_ids[0] == tokenizer.bos_token_id
    assert tokenized.counts == (False,) + (True,) * (len(tokenized.token_ids) - 1)


@pytest.mark.parametrize("text", ["<s>already there", "not there"])
def test_a_text_has_one_bos_whoever_wrote_it(tokenizer: Any, text: str) -> None:
    tokenized = one(TextRecord(PLACE, text), tokenizer)
    assert tokenized.token_ids.count(tokenizer.bos_token_id) == 1
    assert tokenized.token_ids[0] == tokenizer.bos_token_id


def test_a_conversation_has_the_bos_of_its_template_only(tokenizer: Any) -> None:
    tokenized = one(ConversationRecord(PLACE, CHAT), tokenizer)
    assert tokenized.token_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(tokenized.token_ids).count("what is a merge?") == 1


def test_what_the_assistant_says_counts_with_its_end_of_turn(tokenizer: Any) -> None:
    tokenized = one(ConversationRecord(PLACE, CHAT), tokenizer)
    assert marked(tokenized, tokenizer) == "adding the delta</s>quantization</s>"


def test_assistant_turns_of_a_prompt_do_not_count(tokenizer: Any) -> None:
    tokenized = one(ConversationRecord(PLACE, CHAT, prompt_turns=3), tokenizer)
    assert marked(tokenized, tokenizer) == "quantization</s>"


def test_a_completion_counts_and_its_prompt_does_not(tokenizer: Any) -> None:
    tokenized = one(CompletionRecord(PLACE, "select name from ", "orders;"), tokenizer)
    assert marked(tokenized, tokenizer).strip() == "orders;"
    assert not tokenized.counts[0]


def test_with_loss_on_all_the_prompt_counts_too(tokenizer: Any) -> None:
    for record in (CompletionRecord(PLACE, "a b ", "c"), ConversationRecord(PLACE, CHAT)):
        tokenized = one(record, tokenizer, LossOn.ALL)
        assert all(tokenized.counts[1:])


def test_a_turn_that_the_template_rewrites_once_another_follows_does_not_count() -> None:
    tokenizer = byte_tokenizer()
    # Like templates that show reasoning in the last turn only.
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{% if loop.last and m.role == 'assistant' %}"
        "(thinks) {% endif %}{{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenized = one(ConversationRecord(PLACE, CHAT), tokenizer)
    assert marked(tokenized, tokenizer) == "(thinks) quantization</s>"


def test_a_conversation_for_a_model_without_template_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(Refused, match="chat template") as refused:
        one(ConversationRecord(PLACE, CHAT), tokenizer)
    assert refused.value.reason is Reason.INVALID_INPUT


def test_a_conversation_that_the_template_refuses_is_named_by_its_line() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(Refused, match=r"task\.jsonl line 1"):
        one(ConversationRecord(PLACE, CHAT), tokenizer)


def test_a_conversation_without_assistant_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Refused, match="assistant"):
        one(ConversationRecord(PLACE, CHAT[:1]), tokenizer)
