"""The data plane's bars, measured side by side: `make bench-data`.

    python bench/data/bench_data.py [--size 2.0] [--pairs 5] [--folder DIR] [--only store]

Every row is a pair of commands in turn, A B A B ..., each in a process of its own; what counts is
the median of the ratios, pair by pair, so that a machine whose speed drifts does not decide.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import Figures, as_pairs, measure

import tiny_model
from lora_api.spec import RecordFormat
from lora_jobs.datasets.records import read_records
from lora_jobs.quantizing.rows import rows_for_model

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
SAMPLES, SEQUENCE_LENGTH = 120, 512


@dataclass(frozen=True)
class Row:
    """A bar and what was measured.

    Attributes:
        figure: What the number is, e.g. `wall / wall of cp + fsync`.
        bar: `<=` or `>=`, and the number.
        measured: The number.
        note: Medians of both sides.
    """

    figure: str
    bar: tuple[str, float]
    measured: float
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        sign, limit = self.bar
        return self.measured <= limit if sign == "<=" else self.measured >= limit


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=2.0, help="GB of the bf16 model")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="needs three times the size")
    parser.add_argument("--only", choices=["merge", "quantize", "store"])
    parser.add_argument("--no-peft", action="store_true", help="leave the slowest pair out")
    chosen = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-data-", dir=chosen.folder)).resolve()
    os.chdir(work)  # GPTQModel leaves its logs where it runs
    try:
        if chosen.only != "quantize":
            _run([PYTHON, str(HERE / "model.py"), str(work), str(chosen.size)])
        rows = []
        if chosen.only in (None, "merge"):
            rows += _merge(work, chosen.pairs, not chosen.no_peft)
        if chosen.only in (None, "store"):
            rows += _store(work, chosen.pairs)
        if chosen.only in (None, "quantize"):
            rows += _quantize(work, chosen.pairs)
        _print(rows, chosen.size, chosen.pairs)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _merge(work: Path, pairs: int, with_peft: bool) -> list[Row]:
    base, adapter, ours, other = (work / n for n in ("base", "adapter", "ours", "other"))
    merge = [PYTHON, "-m", "lora_jobs", "merge", "--base", base, "--adapter", adapter,
             "--output", ours]  # fmt: skip
    copy = ["sh", "-c", f"cp -r {base} {other} && sync {other}/*"]
    fresh = [ours, other]
    bare = [PYTHON, HERE / "without_hashes.py", base, adapter, ours]
    unhashed = as_pairs(bare, copy, pairs, fresh)
    measured = as_pairs(merge, copy, pairs, fresh)
    equality = float(_run([PYTHON, str(HERE / "equality.py"), str(work)]))
    rows = [
        _ratio("merge: wall / wall of cp + fsync", ("<=", 1.6), measured),
        _ratio("merge without hashes: the same", ("<=", 1.25), unhashed),
        Row("merge: peak RSS, MiB", ("<=", 160), max(a.peak_mib for a, _ in measured)),
        Row("merge: weights equal to round(fp64)", (">=", 0.9999), equality),
    ]
    if with_peft:
        peft = [PYTHON, str(HERE / "with_peft.py"), base, adapter, other]
        slower = [(b, a) for a, b in as_pairs(merge, peft, pairs, fresh)]
        rows.append(_ratio("merge: wall of PEFT / wall", (">=", 6), slower))
    for folder in fresh:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def _quantize(work: Path, pairs: int) -> list[Row]:
    """The demo's model, for GPTQ needs real activations; most of it is not the start of Python."""
    tiny = tiny_model.ensure()
    base, ours, other, kept, rows = (work / n for n in ("t", "q-ours", "q-other", "kept", "rows"))
    shutil.copytree(tiny.base, base)
    quantize = [PYTHON, "-m", "lora_jobs", "quantize", "--model", base, "--calibration",
                tiny.calibration, "--samples", SAMPLES, "--sequence-length", SEQUENCE_LENGTH,
                "--output", ours]  # fmt: skip
    drawn = rows_for_model(
        base, [read_records(tiny.calibration, RecordFormat.AUTO)],
        samples=SAMPLES, sequence_length=SEQUENCE_LENGTH, seed=0,
    )  # fmt: skip
    rows.write_text(json.dumps([list(row) for row in drawn]))
    bare = [PYTHON, HERE / "with_gptqmodel.py", base, rows, other]
    fresh = [ours, other, kept]
    plain = as_pairs(quantize, bare, pairs, fresh)
    checkpoints = as_pairs([*quantize, "--checkpoint", kept], bare, pairs, fresh)
    return [
        _ratio("quantize: wall / wall of bare GPTQModel", ("<=", 1.05), plain),
        _ratio("quantize with checkpoints: the same", ("<=", 1.15), checkpoints),
    ]


def _store(work: Path, pairs: int) -> list[Row]:
    def client(what: str) -> Sequence[object]:
        return [PYTHON, HERE / "transfers.py", what, work / "base", work / "out"]

    fresh = [work / "out"]
    up = as_pairs(client("upload"), client("upload-boto3"), pairs, fresh)
    down = as_pairs(client("download"), client("download-boto3"), pairs, fresh)
    tuned = as_pairs(client("download"), client("download-tuned"), pairs, fresh)
    return [
        _ratio("upload: wall of boto3's defaults / wall", (">=", 1.2), _swapped(up)),
        _ratio("upload: client CPU / CPU of boto3's defaults", ("<=", 0.7), up, "cpu_seconds"),
        _ratio("download with verification: boto3's defaults / wall", (">=", 1.5), _swapped(down)),
        _ratio("fetch + verify: tuned download without / wall", (">=", 0.7), _swapped(tuned)),
        Row("transfers: peak RSS, MiB", ("<=", 400), max(a.peak_mib for a, _ in (*up, *down))),
    ]


def _swapped(pairs: list[tuple[Figures, Figures]]) -> list[tuple[Figures, Figures]]:
    return [(b, a) for a, b in pairs]


def _ratio(
    figure: str,
    bar: tuple[str, float],
    pairs: list[tuple[Figures, Figures]],
    of: str = "wall_seconds",
) -> Row:
    one, other = ([float(getattr(f, of)) for f in side] for side in zip(*pairs, strict=True))
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    note = f"{statistics.median(one):.2f} s / {statistics.median(other):.2f} s"
    spread = f", {min(ratios):.2f} to {max(ratios):.2f}"
    return Row(figure, bar, statistics.median(ratios), note + spread)


def _print(rows: list[Row], size: float, pairs: int) -> None:
    print(f"{size} GB model, medians of {pairs} interleaved pairs\n")
    print("| figure | bar | measured | met | medians, spread of ratios |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        sign, limit = row.bar
        met = "yes" if row.holds else "**no**"
        print(f"| {row.figure} | {sign} {limit} | {row.measured:.5g} | {met} | {row.note} |")


def _run(command: Sequence[str]) -> str:
    return measure(command, keep_output=True).output


if __name__ == "__main__":
    main()
