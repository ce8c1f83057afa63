"""Records that stand nearly word for word in another set are found; common phrases are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_api.jobcontract import Reason
from lora_api.spec import RecordFormat
from lora_jobs.datasets.nearduplicates import MIN_RUNS, RUN_WORDS, SHARE, near_duplicates
from lora_jobs.datasets.overlap import refuse_overlap
from lora_jobs.datasets.records import Place, RecordSet, TextRecord
from lora_jobs.errors import Refused


def words(first: int, count: int) -> list[str]:
    return [f"w{i}" for i in range(first, first + count)]


def text(first: int, count: int) -> str:
    return " ".join(words(first, count))


def with_other_words(count: int, *places: int) -> str:
    changed = words(0, count)
    for place in places:
        changed[place] = "other"
    return " ".join(changed)


UNSPACED = "".join(chr(0x4E00 + i) for i in range(40))


@pytest.mark.parametrize(
    ("why", "seen", "asked", "found"),
    [
        ("equal", text(0, 40), text(0, 40), True),
        ("case, punctuation, breaks", text(0, 40).upper().replace(" ", ",\n"), text(0, 40), True),
        ("one word in the middle", text(0, 40), with_other_words(40, 20), True),
        ("a word at each end", text(0, 40), with_other_words(40, 0, 39), True),
        ("inside of a longer document", text(0, 500), text(200, 40), True),
        ("a longer document that quotes one", text(0, 40), text(0, 500), False),
        ("two words in the middle", text(0, 40), with_other_words(40, 13, 27), False),
        ("the first half", text(0, 20), text(0, 40), False),
        ("other words", text(100, 40), text(0, 40), False),
        ("the same words in another order", text(0, 40), " ".join(words(0, 40)[::-1]), False),
        ("too short to tell", text(0, 40), text(0, RUN_WORDS + MIN_RUNS - 2), False),
        ("just long enough", text(0, 40), text(0, RUN_WORDS + MIN_RUNS - 1), True),
        ("a script without spaces", f"{UNSPACED}。", UNSPACED[3:], True),
        ("nothing", "", "", False),
    ],
)
def test_a_record_that_another_nearly_holds_is_found(
    why: str, seen: str, asked: str, found: bool
) -> None:
    assert bool(list(near_duplicates([seen], [asked]))) is found, why


def test_a_template_that_most_records_share_is_no_evidence() -> None:
    template = text(0, 100)
    asked = [f"{template} {text(1000 * i, 12)}" for i in range(1, 6)]
    seen = f"{template} {text(90_000, 12)}"
    assert list(near_duplicates([seen], asked)) == []


def test_a_copy_under_a_shared_template_is_found() -> None:
    template = text(0, 100)
    asked = [f"{template} {text(1000 * i, 40)}" for i in range(1, 6)]
    # 36 of the 40 runs that are not the template's: four begin in it.
    assert list(near_duplicates(["x", text(3000, 40)], asked)) == [(2, 1, 0.9)]


def test_the_record_that_holds_most_is_named_wherever_it_stands_in_a_large_set() -> None:
    seen = [text(10_000 + 50 * i, 50) for i in range(600)]
    seen[100], seen[555] = with_other_words(40, 20), text(0, 40)
    assert list(near_duplicates(seen, [text(500, 40), text(0, 40)])) == [(1, 555, 1.0)]


SMALL = st.lists(st.lists(st.sampled_from("abc"), max_size=30).map(" ".join), max_size=6)


@given(known=SMALL, asked=SMALL)
def test_it_finds_what_comparing_every_pair_finds(known: list[str], asked: list[str]) -> None:
    def runs(record: str) -> set[tuple[str, ...]]:
        found = record.split()
        return {tuple(found[i : i + RUN_WORDS]) for i in range(len(found) - RUN_WORDS + 1)}

    sets = [runs(record) for record in asked]
    template = {r for own in sets for r in own if sum(r in s for s in sets) > max(2, len(sets) / 2)}
    expected = []
    for at, own in enumerate(s - template for s in sets):
        held = [len(own & runs(record)) for record in known]
        if held and len(own) >= MIN_RUNS and max(held) >= SHARE * len(own):
            expected.append((at, held.index(max(held)), max(held) / len(own)))
    assert list(near_duplicates(known, asked)) == expected


@given(st.lists(st.sampled_from("abcdefghij"), min_size=20, max_size=60), st.integers(0, 5))
def test_a_copy_inside_of_anything_is_always_found(copied: list[str], others: int) -> None:
    asked = " ".join(copied)
    if len({tuple(copied[i : i + RUN_WORDS]) for i in range(len(copied) - 4)}) < MIN_RUNS:
        return
    known = [text(100 * i, 30) for i in range(others)] + [f"before {asked} after"]
    assert [(at, holder) for at, holder, _ in near_duplicates(known, [asked])] == [(0, others)]


def test_a_near_duplicate_is_refused_with_count_and_lines_and_little_of_its_content() -> None:
    def records(name: str, *texts: str) -> RecordSet:
        rows = tuple(TextRecord(Place(f"{name}.jsonl", i), t) for i, t in enumerate(texts, start=1))
        return RecordSet(name, RecordFormat.TEXT, rows)

    calibration = [records("calibration0", "x"), records("calibration1", "y", text(0, 40))]
    with pytest.raises(Refused) as refused:
        refuse_overlap(calibration, records("task", "z", with_other_words(40, 20)))
    assert refused.value.reason is Reason.DATASET_OVERLAP
    message = str(refused.value)
    assert "1 of 2 records of task" in message
    assert "86% of task.jsonl line 2 in calibration1.jsonl line 2" in message
    assert text(0, 40)[:40] in message
    assert text(0, 40)[:41] not in message
