"""The answers that every pod of a release must give: recorded here, asked again by `verify`. Pure.

Greedy decoding is not always repeatable: a kernel that adds up in another order may tip a tie. So
prompts are asked several times, in several processes, and only what came out the same each time is
expected of a pod. Whether an answer tells the quantized model from the others is counted as well:
an expectation that the base model meets too proves little.
"""

from collections.abc import Mapping, Sequence

from lora_api.base import ApiModel
from lora_api.gates import BASE

ANSWER_TOKENS = 16
MIN_STABLE_PIECES = 8


class Expectation(ApiModel):
    """One prompt and how its greedy answer begins."""

    prompt: str
    token_ids: list[int]
    answer: str
    distinguishes: list[str] = []
    """Conditions that answered otherwise."""


class Expectations(ApiModel):
    """What `verify` asks of a pod."""

    artifact: str
    """Digest of the quantized model that gave the answers."""
    answer_tokens: int = ANSWER_TOKENS
    compared_with: list[str] = []
    """Conditions that were asked the same."""
    prompts: list[Expectation] = []

    @property
    def telling(self) -> list[Expectation]:
        """Prompts that the base model answers otherwise; all of them when it was not asked."""
        if BASE not in self.compared_with:
            return self.prompts
        return [p for p in self.prompts if BASE in p.distinguishes]


def stable_prefix(answers: Sequence[Sequence[str]]) -> list[str]:
    """The pieces with which all answers to one prompt begin."""
    prefix: list[str] = []
    for pieces in zip(*answers, strict=False):
        if len(set(pieces)) > 1:
            break
        prefix.append(pieces[0])
    return prefix


def is_stable(answers: Sequence[Sequence[str]]) -> bool:
    """Whether an answer was repeated, and began the same each time for long enough."""
    return len(answers) > 1 and len(stable_prefix(answers)) >= MIN_STABLE_PIECES


def only_piece(answers: Sequence[Sequence[Sequence[str]]]) -> str:
    """The piece of which all answers to all prompts consist; empty where they have others too.

    Args:
        answers: By prompt, the pieces of each answer; of one prompt alone nothing is said.
    """
    pieces = {piece for same in answers for answer in same for piece in answer}
    return pieces.pop() if len(answers) > 1 and len(pieces) == 1 else ""


def expectation_of(
    prompt: str,
    token_ids: Sequence[int],
    answers: Sequence[Sequence[str]],
    others: Mapping[str, Sequence[str]],
) -> Expectation | None:
    """What to expect of a prompt; None when it was not answered alike.

    Args:
        prompt: The text.
        token_ids: The same as token ids.
        answers: Pieces of every answer of the quantized model.
        others: Pieces of an answer of each other condition.
    """
    if not is_stable(answers):
        return None
    answer = "".join(stable_prefix(answers))
    return Expectation(
        prompt=prompt,
        token_ids=list(token_ids),
        answer=answer,
        distinguishes=sorted(
            condition for condition, said in others.items() if not "".join(said).startswith(answer)
        ),
    )
