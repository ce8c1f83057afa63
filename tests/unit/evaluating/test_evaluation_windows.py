"""Windows: every token scored once, no window across documents."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_jobs.datasets.tokens import TokenizedRecord
from lora_jobs.evaluating.windows import Window, batches, cut_windows, windows_digest

# Token ids that name their document and position, so that a window shows where it was cut.
documents = st.lists(st.lists(st.booleans(), max_size=40), max_size=8).map(
    lambda masks: [
        TokenizedRecord(tuple(1000 * d + i for i in range(len(mask))), tuple(mask))
        for d, mask in enumerate(masks)
    ]
)
lengths = st.integers(2, 16)


@given(documents, lengths)
def test_every_counting_token_but_a_documents_first_is_scored_exactly_once(
    records: list[TokenizedRecord], context_length: int
) -> None:
    scored = Counter(
        token
        for window in cut_windows(records, context_length)
        for token, counts in zip(window.token_ids, window.scored, strict=True)
        if counts
    )
    expected = {
        token
        for record in records
        for token, counts in list(zip(record.token_ids, record.counts, strict=True))[1:]
        if counts
    }
    assert scored == Counter(expected)


@given(documents, lengths)
def test_a_window_is_consecutive_tokens_of_one_document_with_context_before_the_scored(
    records: list[TokenizedRecord], context_length: int
) -> None:
    for window in cut_windows(records, context_length):
        start = window.token_ids[0]
        assert window.token_ids == tuple(range(start, start + len(window.token_ids)))
        assert {t // 1000 for t in window.token_ids} == {window.document}
        assert 2 <= len(window.token_ids) <= context_length
        assert not window.scored[0]
        assert window.scored_tokens > 0


@given(documents, lengths, st.integers(1, 64))
def test_every_window_is_in_exactly_one_batch_within_the_padded_budget(
    records: list[TokenizedRecord], context_length: int, most_tokens: int
) -> None:
    windows = cut_windows(records, context_length)
    grouped = list(batches(windows, most_tokens))
    assert sorted(i for batch in grouped for i in batch) == list(range(len(windows)))
    for batch in grouped:
        longest = max(len(windows[i].token_ids) for i in batch)
        assert longest * len(batch) <= most_tokens or len(batch) == 1
        assert len(windows[batch[0]].token_ids) == longest


def test_the_digest_tells_apart_what_is_scored_from_what_is_context() -> None:
    same = [Window(0, (1, 2, 3), (False, True, True))]
    assert windows_digest(same) == windows_digest([Window(0, (1, 2, 3), (False, True, True))])
    others = [
        [Window(0, (1, 2, 3), (False, False, True))],
        [Window(0, (1, 2, 4), (False, True, True))],
        [Window(1, (1, 2, 3), (False, True, True))],
        [Window(0, (1, 2), (False, True)), Window(0, (2, 3), (False, True))],
    ]
    assert windows_digest(same) not in {windows_digest(o) for o in others}


def test_a_window_needs_context() -> None:
    with pytest.raises(ValueError, match="context"):
        cut_windows([], 1)
