"""The text of the tiny model: enough of it, of similar size, and no record twice."""

import pytest

from tiny_model import corpus
from tiny_model.build import HELD_OUT
from tiny_model.corpus import DOCUMENT_CHARACTERS, Corpus
from tiny_model.training import BOS, train_tokenizer


@pytest.fixture(scope="module")
def prose() -> Corpus:
    return corpus.prose(HELD_OUT)


@pytest.fixture(scope="module")
def code() -> Corpus:
    return corpus.code(HELD_OUT)


def test_at_least_a_hundred_documents_of_similar_size_are_held_out(
    prose: Corpus, code: Corpus
) -> None:
    for held_out in (prose.held_out, code.held_out):
        assert len(held_out) >= 100
        sizes = [len(d) for d in held_out]
        assert min(sizes) >= DOCUMENT_CHARACTERS
        assert max(sizes) <= 1.5 * DOCUMENT_CHARACTERS


def test_no_record_is_both_seen_and_held_out(prose: Corpus, code: Corpus) -> None:
    normal = [
        " ".join(d.casefold().split())
        for c in (prose, code) for d in (*c.train, *c.held_out)
    ]  # fmt: skip
    assert len(normal) == len(set(normal))


def test_the_corpus_is_the_same_at_every_call(code: Corpus) -> None:
    assert corpus.code(HELD_OUT) == code


def test_text_is_encoded_with_bos_in_front_and_comes_back(code: Corpus) -> None:
    tokenizer = train_tokenizer(code.train[:50])
    text = code.held_out[0]
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    chat = [{"role": "user", "content": "hello"}]
    assert str(tokenizer.apply_chat_template(chat, tokenize=False)).startswith(BOS)
