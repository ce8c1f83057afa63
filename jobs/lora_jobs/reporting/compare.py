"""Two reports side by side, and what was asked for otherwise. Pure but for the template."""

from typing import Any

from lora_api.gates import GateResult
from lora_api.report import Report
from lora_jobs.reporting.render import page_environment

Cells = list[tuple[str, str]]


def comparison_html(one: Report, other: Report) -> str:
    """Two reports side by side."""
    template = page_environment().get_template("compare.html.j2")
    return template.render(
        reports=(one, other),
        tables=tables_side_by_side(one, other),
        gates=gates_side_by_side(one, other),
        differences=spec_differences(one, other),
    )


def tables_side_by_side(one: Report, other: Report) -> list[tuple[str, str, Cells]]:
    """(metric, condition, [(cell, against base) of each report]) for every cell of either."""
    rows = [{row.label: row for row in report.table} for report in (one, other)]
    found = []
    for label in dict.fromkeys([*rows[0], *rows[1]]):
        for column, condition in enumerate(one.conditions):
            cells: Cells = []
            for table in rows:
                row = table.get(label)
                against = row.against_base[column] if row and row.against_base else ""
                cells.append((row.cells[column] if row else "-", against))
            if any(cell != "-" for cell, _ in cells):
                found.append((label, condition, cells))
    return found


def gates_side_by_side(one: Report, other: Report) -> list[tuple[str, list[GateResult | None]]]:
    """(gate, [its result in each report, or None])."""
    by_name = [{gate.name: gate for gate in report.gates} for report in (one, other)]
    names = dict.fromkeys([*by_name[0], *by_name[1]])
    return [(name, [gates.get(name) for gates in by_name]) for name in names]


def spec_differences(one: Report, other: Report) -> list[tuple[str, str, str]]:
    """(path, one's value, the other's) of what was asked for and pinned otherwise."""
    flat = [_flat(r.spec) | {f"{s.name} digest": s.digest for s in r.sources} for r in (one, other)]
    paths = dict.fromkeys([*flat[0], *flat[1]])
    pairs = ((path, flat[0].get(path, "-"), flat[1].get(path, "-")) for path in paths)
    return [(path, a, b) for path, a, b in pairs if a != b]


def _flat(node: Any, path: str = "") -> dict[str, str]:
    if isinstance(node, dict) and node:
        inner = [_flat(value, f"{path}.{key}" if path else key) for key, value in node.items()]
    elif isinstance(node, list) and node:
        inner = [_flat(value, f"{path}[{index}]") for index, value in enumerate(node)]
    else:
        return {path: str(node)} if path else {}
    return {key: value for part in inner for key, value in part.items()}
