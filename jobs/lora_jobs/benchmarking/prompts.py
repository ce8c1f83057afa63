"""Fixed prompts of an exact number of tokens, the same for every condition and every run.

Random ordinary tokens, seeded, so that nothing depends on a data set and no two share a prefix
worth caching. A prompt must survive the way text -> tokens, since some engines take text only: what
does not come back with the exact length is drawn again. Only the tokenizers library, no torch.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_api.digests import digest_of
from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused

if TYPE_CHECKING:  # `verify` knows prompts, and its image has no tokenizers
    from tokenizers import Tokenizer

SEED = 20_261_122
_DRAWS = 200


@dataclass(frozen=True)
class Prompt:
    """One prompt, as text and as the token ids that an engine makes of it."""

    text: str
    token_ids: tuple[int, ...]


def fixed_prompts(model: Path, tokens: int, count: int, seed: int = SEED) -> list[Prompt]:
    """Different prompts of exactly `tokens` tokens, special tokens of the tokenizer included.

    Raises:
        Refused: The model has no tokenizer.json, or its tokenizer cannot give such prompts.
    """
    tokenizer = _tokenizer(model)
    source = random.Random(seed)  # noqa: S311 - not for secrets
    ordinary = _ordinary_ids(tokenizer)
    prompts: list[Prompt] = []
    for _ in range(count):
        prompts.append(_draw(tokenizer, ordinary, tokens, source))
    return prompts


def prompts_hash(prompts: list[Prompt]) -> str:
    """`sha256:<hex>` of the token ids in order."""
    return digest_of([list(p.token_ids) for p in prompts])


def _tokenizer(model: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    file = model / "tokenizer.json"
    if not file.is_file():
        raise Refused(
            Reason.INVALID_INPUT,
            f"{model.name} has no tokenizer.json; save its tokenizer as a fast one beside it",
        )
    tokenizer: Tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _ordinary_ids(tokenizer: "Tokenizer") -> list[int]:
    """Tokens that stand for plain printable text on their own."""
    special = {i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    texts = {
        i: tokenizer.decode([i]).strip()
        for i in range(tokenizer.get_vocab_size(with_added_tokens=False))
        if i not in special
    }
    return [i for i, text in texts.items() if text.isascii() and text.isalnum()]


def _draw(
    tokenizer: "Tokenizer", ordinary: list[int], tokens: int, source: random.Random
) -> Prompt:
    for _ in range(_DRAWS * bool(ordinary)):
        ids: list[int] = source.choices(ordinary, k=tokens)
        for _ in range(_DRAWS):
            text = tokenizer.decode(ids)
            found = tokenizer.encode(text).ids
            surplus = len(found) - tokens
            if surplus == 0:
                return Prompt(text, tuple(found))
            if surplus > 0:
                ids = ids[: max(1, len(ids) - surplus)]
            else:
                ids = ids + source.choices(ordinary, k=-surplus)
    raise Refused(
        Reason.INVALID_INPUT,
        f"no prompts of exactly {tokens} tokens can be made with this tokenizer; "
        "change benchmark.workload.inputTokens",
    )
