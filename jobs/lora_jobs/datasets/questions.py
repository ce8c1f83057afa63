"""Records as questions: what a model reads, and what it should answer."""

from dataclasses import dataclass

from lora_api.jobcontract import Reason
from lora_jobs.datasets.records import CompletionRecord, ConversationRecord, Record, RecordSet
from lora_jobs.datasets.tokens import Tokenizer, prompt_of_turn
from lora_jobs.errors import Refused


@dataclass(frozen=True)
class Question:
    """One record.

    Attributes:
        token_ids: The prompt, as serving would tokenize it.
        expected: The completion.
    """

    token_ids: tuple[int, ...]
    expected: str


def questions_of(records: RecordSet, tokenizer: Tokenizer) -> list[Question]:
    """Every record as a question; of a conversation the last turn of the assistant is asked for.

    Raises:
        Refused: A record has no prompt, or there is no chat template for it.
    """
    return [_question(record, records.name, tokenizer) for record in records.records]


def _question(record: Record, name: str, tokenizer: Tokenizer) -> Question:
    match record:
        case CompletionRecord():
            ids = tokenizer(record.prompt, add_special_tokens=True)["input_ids"]
            return Question(tuple(ids), record.completion)
        case ConversationRecord():
            turns = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
            if turns and turns[-1] >= record.prompt_turns and turns[-1] > 0:
                text = prompt_of_turn(record, tokenizer, turns[-1])
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                return Question(tuple(ids), record.messages[turns[-1]].content)
    raise Refused(
        Reason.INVALID_INPUT,
        f"{record.place}: data set {name} has a scorer, which needs records with a prompt and a "
        "completion, or conversations that the assistant ends; this one has none",
    )
