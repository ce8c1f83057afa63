"""The report's plots as SVG that takes its ink from the page. From a `Report` alone.

matplotlib draws with sentinel colours, which become CSS variables of the page: so one file is right
in light and dark and on paper. Text stays text. Same report, same bytes.
"""

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_api.gates import BASE, CONDITIONS, DYNAMIC, MERGED, QUANTIZED
from lora_api.report import Distribution, PairedDifferences, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#010203", "#040506"
COLOURS = {BASE: "#070809", DYNAMIC: "#0a0b0c", MERGED: "#0d0e0f", QUANTIZED: "#101112"}
"""Sentinels that no plot uses otherwise."""
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)"} | {
    sentinel: f"var(--{condition})" for condition, sentinel in COLOURS.items()
}
MARKERS = {BASE: "o", DYNAMIC: "s", MERGED: "D", QUANTIZED: "^"}
DASHES = {BASE: "-", DYNAMIC: ":", MERGED: "--", QUANTIZED: "-"}
WIDTH_INCHES = 7.6


class Chart(NamedTuple):
    """One plot and how it is read."""

    title: str
    note: str
    svg: str


def charts(report: Report) -> list[Chart]:
    """Every plot that the report has data for."""
    drawn: list[Chart] = []
    with _style():
        for title, note, has_data, draw in _PLOTS:
            if has_data(report):
                figure = draw(report)
                drawn.append(Chart(title, note, _svg(figure, f"{title}. {note}", len(drawn))))
    return drawn


@contextmanager
def _style() -> Iterator[None]:
    # Pods have a read-only root and often no home; matplotlib wants a folder of its own.
    if "MPLCONFIGDIR" not in os.environ and not os.access(os.path.expanduser("~"), os.W_OK):
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-")
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": FAINT,
        "grid.alpha": 0.25,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(settings):
        yield


def _figure(rows: int, columns: int = 1, height_inches: float = 2.6) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _svg(figure: "Figure", label: str, number: int) -> str:
    import matplotlib as mpl

    sink = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.hashsalt": str(number)}):
        figure.savefig(sink, format="svg", transparent=True, metadata=metadata)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    for sentinel, variable in VARIABLES.items():
        text = text.replace(sentinel, variable)
    # Names are unique in a page, and fixed sizes would not fit a phone.
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>c{number}-", text)
    text = re.sub(r"<svg ([^>]*?)(?:width|height)=\"[^\"]*\" ", r"<svg \1", text, count=2)
    text = re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r"font: (\d+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _paired(report: Report) -> "Figure":
    figure, axes = _figure(len(report.paired), height_inches=0.7 + 0.75 * len(report.paired))
    for ax, pair in zip(axes, report.paired, strict=True):
        _strip(ax, pair)
    axes[-1].set_xlabel("nats per token, one point a document; right of 0 is worse")
    return figure


def _strip(ax: "Axes", pair: PairedDifferences) -> None:
    points = pair.nats_per_token
    colour = COLOURS[pair.condition]
    heights = [((i * 0.618034) % 1 - 0.5) * 0.5 for i in range(len(points))]
    ax.plot(points, heights, ".", color=colour, alpha=0.45, markersize=4)
    ax.axvline(0, color=FAINT, linewidth=1)
    error = None
    if pair.lower is not None and pair.upper is not None:
        low, high = min(pair.lower, pair.mean), max(pair.upper, pair.mean)
        error = [[pair.mean - low], [high - pair.mean]]
    ax.errorbar([pair.mean], [0], xerr=error, fmt="D", color=INK, capsize=5, zorder=3)
    ax.set_yticks([0], [f"{pair.condition} - {pair.against}\n{pair.evaluation_set} set"])
    ax.set_ylim(-0.5, 0.5)
    ax.grid(axis="y", visible=False)


def _timings(report: Report) -> "Figure":
    assert report.speed is not None  # there are distributions
    distributions = report.speed.distributions
    concurrencies = sorted({d.concurrency for d in distributions})
    shown = sorted({concurrencies[0], concurrencies[-1]})
    figure, axes = _figure(len(shown), 2, height_inches=2.5 * len(shown) + 0.3)
    for row, concurrency in enumerate(shown):
        for column, metric in enumerate(("TimeToFirstToken", "TimePerOutputToken")):
            ax = axes[2 * row + column]
            _cumulative(
                ax,
                [d for d in distributions if (d.concurrency, d.metric) == (concurrency, metric)],
            )
            name = "TTFT" if column == 0 else "TPOT"
            ax.set_xlabel(f"{name} (ms) at concurrency {concurrency}")
    axes[0].set_ylabel("share of requests")
    axes[0].legend(loc="lower right", fontsize=9)
    return figure


def _cumulative(ax: "Axes", distributions: list[Distribution]) -> None:
    for d in distributions:
        shares = [p / 100 for p in range(len(d.percentiles_ms))]
        ax.plot(d.percentiles_ms, shares, DASHES[d.condition], color=COLOURS[d.condition],
                label=f"{d.condition} ({d.requests})")  # fmt: skip
    ax.set_ylim(0, 1)


def _throughputs(report: Report) -> dict[str, list[tuple[int, float]]]:
    """Output tokens per second by condition, over concurrency."""
    found: dict[str, list[tuple[int, float]]] = {}
    for key, row in report.measurements.items():
        metric, _, concurrency = key.partition("@")
        if metric == "OutputTokensPerSecond" and concurrency.isdigit():
            for condition in CONDITIONS:
                if condition in row:
                    found.setdefault(condition, []).append(
                        (int(concurrency), float(row[condition]))
                    )
    return {condition: sorted(points) for condition, points in found.items()}


def _throughput(report: Report) -> "Figure":
    figure, (ax,) = _figure(1)
    lines = _throughputs(report)
    for condition, points in lines.items():
        ax.plot(*zip(*points, strict=True), DASHES[condition], marker=MARKERS[condition],
                color=COLOURS[condition], label=condition)  # fmt: skip
    ticks = sorted({c for points in lines.values() for c, _ in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(c) for c in ticks])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("requests at a time")
    ax.set_ylabel("output tokens/s")
    ax.legend(fontsize=9)
    return figure


def _sized(report: Report) -> list[tuple[str, str, float, float, bool]]:
    """(name, condition, MiB, perplexity, judged) of reference conditions and of every recipe."""
    weights = report.measurements.get("WeightsBytes", {})
    perplexity = report.measurements.get("Perplexity/task", {})
    tried = [c for c in report.candidates if c.perplexity and c.weights_bytes]
    served = {c.served for c in tried}
    found = [
        (c, c, float(weights[c]) / 2**20, float(perplexity[c]), False)
        for c in (BASE, DYNAMIC, MERGED)
        if c in weights and c in perplexity and c not in served
    ]
    found += [
        (c.name, c.served, float(c.weights_bytes) / 2**20, float(c.perplexity), c.chosen)
        for c in tried
    ]
    if not tried and QUANTIZED in weights and QUANTIZED in perplexity:
        size, quality = float(weights[QUANTIZED]) / 2**20, float(perplexity[QUANTIZED])
        found.append((QUANTIZED, QUANTIZED, size, quality, True))
    return found


def _size_and_quality(report: Report) -> "Figure":
    figure, (ax,) = _figure(1, height_inches=3.0)
    for index, (name, condition, mebibytes, perplexity, is_judged) in enumerate(_sized(report)):
        ax.plot([mebibytes], [perplexity], MARKERS[condition], color=COLOURS[condition])
        if is_judged:
            ax.plot([mebibytes], [perplexity], "o", markersize=14, fillstyle="none", color=INK)
        above = index % 2  # neighbours often lie on each other: names go to different sides
        ax.annotate(
            f"{name} (judged)" if is_judged else name, (mebibytes, perplexity),
            textcoords="offset points", xytext=(9, 5 if above else -12), fontsize=9,
        )  # fmt: skip
    ax.margins(0.18)
    ax.set_xlabel("weights (MiB)")
    ax.set_ylabel("task perplexity")
    return figure


def _noise(report: Report) -> "Figure":
    assert report.speed is not None  # there are comparisons
    rows = report.speed.comparisons
    figure, (ax,) = _figure(1, height_inches=0.9 + 0.32 * len(rows))
    for height, row in enumerate(reversed(rows)):
        error = None
        if row.lower is not None and row.upper is not None:
            low, high = (row.ratio - row.lower) * 100, (row.upper - row.ratio) * 100
            error = [[max(low, 0)], [max(high, 0)]]
        ax.errorbar([(row.ratio - 1) * 100], [height], xerr=error, capsize=4,
                    fmt=MARKERS[row.condition], color=COLOURS[row.condition])  # fmt: skip
    names = [f"{r.metric}\n{_pair_name(r.condition, r.against)}" for r in reversed(rows)]
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    ax.axvline(0, color=FAINT, linewidth=1)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel("change in %, with its 95 % interval")
    return figure


def _pair_name(condition: str, against: str) -> str:
    return f"{condition} against {'itself' if condition == against else against}"


def _has_noise_floor(report: Report) -> bool:
    return bool(report.speed and report.speed.comparisons)


_Plot = tuple[str, str, Callable[[Report], bool], Callable[[Report], "Figure"]]
_PLOTS: tuple[_Plot, ...] = (
    (
        "Document by document",
        "Each point is one document under both models; the diamond is the mean over all tokens "
        "with its 95 % interval.",
        lambda r: bool(r.paired),
        _paired,
    ),
    (
        "Size against quality",
        "Lower and further left is better; the ring marks the recipe that was judged.",
        lambda r: any(condition == QUANTIZED for _, condition, *_ in _sized(r)),
        _size_and_quality,
    ),
    (
        "Time to first token and per output token",
        "Share of requests that were as fast or faster; in brackets the number of requests.",
        lambda r: bool(r.speed and r.speed.distributions),
        _timings,
    ),
    (
        "Throughput against concurrency",
        "Output tokens of all clients per second.",
        lambda r: any(len(points) > 1 for points in _throughputs(r).values()),
        _throughput,
    ),
    (
        "Speed and its noise floor",
        "Quantized against base, and base against itself: what differs less than that is noise.",
        _has_noise_floor,
        _noise,
    ),
)
