"""Draws panels of a Grafana dashboard: its grid, queries, legends and units, with matplotlib."""

import math
import re
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import matplotlib

matplotlib.use("svg")
from matplotlib import dates, pyplot
from matplotlib.ticker import FuncFormatter, MultipleLocator

from prometheus import DASHBOARD, Prometheus, filled

Json = dict[str, Any]
Found = TypeVar("Found", bound=Sized)
_COLUMNS = 24
_DECIMALS = re.compile(r"(\d\.\d\d)\d+")
"""What an SVG need not have."""
_ROW_INCHES, _WIDTH_INCHES = 0.29, 14.0
_INK, _QUIET, _GRID = "#24292f", "#57606a", "#d8dee4"
_ROWS_OF_A_TABLE = 9
_LEGEND_ROWS = 13
_POINTS = 90
_SCALES = {"bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))}


@dataclass(frozen=True)
class Series:
    """One line: its legend, a value for each time, the unit and the axis that it is on."""

    legend: str
    values: list[float]
    unit: str
    on_right: bool


@dataclass(frozen=True)
class Shown:
    """What of a Prometheus is shown.

    Attributes:
        end: Right edge, seconds since the epoch.
        seconds: Width of the time axis.
        scrape_seconds: Between two scrapes.
    """

    prometheus: Prometheus
    end: float
    seconds: float
    scrape_seconds: int

    @property
    def times(self) -> list[float]:
        """Of the points of a line."""
        step = max(self.scrape_seconds, self.seconds / _POINTS)
        count = int(self.seconds / step)
        return [self.end - step * (count - n) for n in range(count + 1)]

    def series(self, panel: Json) -> list[Series]:
        """Of all targets of a panel, over the whole time; NaN where there was none."""
        found, times = [], self.times
        for target in panel["targets"]:
            unit, on_right = _axis(panel, target["refId"])
            for result in self.prometheus.query_range(
                self._query(target), times[0], times[-1], times[1] - times[0]
            ):
                there = {round(float(t)): float(v) for t, v in result["values"]}
                values = [there.get(round(t), math.nan) for t in times]
                legend = _legend(target["legendFormat"], result["metric"])
                found.append(Series(legend, values, unit, on_right))
        return found

    def numbers(self, panel: Json) -> dict[str, float]:
        """By legend, at the end."""
        return {
            _legend(target["legendFormat"], r["metric"]): float(r["value"][1])
            for target in panel["targets"]
            for r in self.prometheus.query(self._query(target), self.end)
        }

    def labels(self, panel: Json) -> list[dict[str, str]]:
        """Of each result of a table's only query, at the end."""
        [target] = panel["targets"]
        return [r["metric"] for r in self.prometheus.query(self._query(target), self.end)]

    def _query(self, target: Json) -> str:
        """Rates over five scrapes; `$__range` is all that is shown."""
        return filled(target["expr"], f"{5 * self.scrape_seconds}s", f"{self.seconds:.0f}s")


def draw(shown: Shown, pictures: Iterable[Path]) -> None:
    """The whole dashboard.

    Raises:
        ValueError: A panel is empty.
    """
    panels = DASHBOARD["panels"]
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    matplotlib.rcParams |= {
        "svg.hashsalt": "dashboard", "svg.fonttype": "none", "font.size": 7.5,
        "font.family": "DejaVu Sans", "text.color": _INK, "axes.labelcolor": _QUIET,
        "xtick.color": _QUIET, "ytick.color": _QUIET,
    }  # fmt: skip
    figure = pyplot.figure(figsize=(_WIDTH_INCHES, rows * _ROW_INCHES), facecolor="#f6f8fa")
    for panel in panels:
        place = panel["gridPos"]
        left, width = place["x"] / _COLUMNS, place["w"] / _COLUMNS
        top, height = 1 - place["y"] / rows, place["h"] / rows
        card = figure.add_axes(
            (left + 0.003, top - height + 0.002, width - 0.006, height - 0.004), facecolor="white"
        )
        card.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
        card.spines[:].set_color(_GRID)
        card.text(0.012, 0.94, panel["title"], fontsize=8.5, weight="bold", va="top")
        _DRAWERS[panel["type"]](card, panel, shown)
    for picture in pictures:
        known = {"Date": None} if picture.suffix == ".svg" else None
        figure.savefig(picture, metadata=known)
        if known:
            picture.write_text(_DECIMALS.sub(r"\1", picture.read_text()))


def _draw_lines(card: Any, panel: Json, shown: Shown) -> None:
    lines = sorted(_found(panel, shown.series(panel)), key=lambda s: -_top(s))[:_LEGEND_ROWS]
    legends = [f"{s.legend}  {_told(s.values[-1], s.unit)}" for s in lines]
    has_right = any(s.on_right for s in lines)
    beside = 0.97 - 0.0085 * max(map(len, legends))
    axes = card.inset_axes((0.08, 0.13, beside - (0.16 if has_right else 0.11), 0.66))
    right = axes.twinx() if has_right else None
    if right:
        right.set_facecolor("none")  # it lies over the other one
    colours = pyplot.get_cmap("tab20").colors
    colours = colours[::2] + colours[1::2]
    when = [datetime.fromtimestamp(t, UTC) for t in shown.times]
    curves = []
    for line, colour in zip(lines, colours, strict=False):
        on = right if line.on_right and right else axes
        curves += on.plot(when, line.values, lw=1.1, color=colour)
    axes.set_xlim(when[0], when[-1])
    axes.xaxis.set_major_locator(dates.MinuteLocator())
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.grid(color=_GRID, lw=0.6)
    for one, is_right in ((axes, False), (right, True)):
        if one is not None:
            _dress(one, [s for s in lines if s.on_right is is_right])
    card.legend(
        curves, legends, loc="upper left", bbox_to_anchor=(beside - 0.03, 0.9), frameon=False,
        fontsize=6.3, labelspacing=0.25, handlelength=1.2, borderpad=0,
    )  # fmt: skip


def _dress(axes: Any, lines: list[Series]) -> None:
    """Scale and ticks of one axis."""
    top, unit = max(map(_top, lines)), lines[0].unit
    axes.set_ylim(0, 1.08 * top or 1)
    if unit == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(top / 5))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _told(v, unit)))
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(length=0, labelsize=6.5)


def _draw_numbers(card: Any, panel: Json, shown: Shown) -> None:
    numbers = sorted(_found(panel, shown.numbers(panel)).items())
    columns = min(4, len(numbers))
    rows = math.ceil(len(numbers) / columns)
    unit, decimals = _axis(panel, "A")[0], panel["fieldConfig"]["defaults"].get("decimals")
    for at, (legend, number) in enumerate(numbers):
        x = 0.03 + 0.95 * (at % columns) / columns
        y = 0.8 - 0.8 * (at // columns) / rows
        card.text(x, y, legend, va="top", color=_QUIET, fontsize=7)
        told = _told(number if decimals is None else round(number, decimals), unit)
        card.text(x, y - 0.08, told, va="top", weight="bold", fontsize=15)


def _draw_table(card: Any, panel: Json, shown: Shown) -> None:
    rows = _found(panel, shown.labels(panel))
    columns = list(rows[0])
    rows = sorted(rows, key=lambda r: [r[c] for c in columns])
    for at, column in enumerate(columns):
        x = 0.02 + 0.96 * at / len(columns)
        card.text(x, 0.8, column, weight="bold", color=_QUIET, va="top", fontsize=7)
        for number, row in enumerate(rows[:_ROWS_OF_A_TABLE]):
            y = 0.71 - 0.073 * number
            card.text(x, y, row.get(column, ""), va="top", fontsize=6.8)
            card.axhline(y + 0.015, color=_GRID, lw=0.5)
    if more := len(rows) - _ROWS_OF_A_TABLE:
        card.text(0.98, 0.8, f"{more} more" if more > 0 else "", ha="right", va="top", color=_QUIET)


_DRAWERS = {"timeseries": _draw_lines, "stat": _draw_numbers, "table": _draw_table}


def _found(panel: Json, what: Found) -> Found:
    if not what:
        raise ValueError(f"the panel {panel['title']!r} is empty")
    return what


def _axis(panel: Json, target: str) -> tuple[str, bool]:
    """Unit of a target's series, and whether they are on the right axis."""
    config = panel["fieldConfig"]
    properties = {
        p["id"]: p["value"]
        for override in config["overrides"]
        if override["matcher"] == {"id": "byFrameRefID", "options": target}
        for p in override["properties"]
    }
    unit = properties.get("unit", config["defaults"]["unit"])
    return unit, properties.get("custom.axisPlacement") == "right"


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), form).strip()


def _top(series: Series) -> float:
    return max((v for v in series.values if not math.isnan(v)), default=0.0)


def _told(value: float, unit: str) -> str:
    """A number for people."""
    if math.isnan(value):
        return "-"
    scales: Iterable[tuple[int, str]] = _SCALES.get(unit, ())
    for scale, name in scales:
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
