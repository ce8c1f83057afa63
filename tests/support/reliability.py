"""Which test shows which fault: docs/reliability.md, from the marks on the tests.

`python -m reliability` writes it. Tests are read, not imported: it needs none of their parts.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
FAULTS = REPOSITORY / "tests/faults/faults.yaml"
PAGE = REPOSITORY / "docs/reliability.md"
_ORDER = ("faults", "integration", "e2e", "contract", "unit")
_HEAD = """\
# What can go wrong, and which test shows it

Written by `make generate` from the marks on the tests and from `tests/faults/faults.yaml`.

Tests below `tests/faults` run the real operator process behind a proxy, on a real API server, and
compare the end with a life without any fault: `make test-faults` for all of them, and
`make test-mutants` for proof that they notice wrong operators. All others run in `make test`.
"""


@dataclass(frozen=True)
class Marked:
    """A test with the faults that it shows.

    Attributes:
        path: Its file, from the repository's root.
        name: Its function.
    """

    path: str
    name: str
    faults: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What it says of the world."""
        return self.name.removeprefix("test_").replace("_", " ")


def faults() -> dict[str, dict[str, str]]:
    """Fault -> its texts."""
    found: dict[str, dict[str, str]] = yaml.safe_load(FAULTS.read_text())
    return found


def marked() -> list[Marked]:
    """All tests with a mark, those nearest to a real cluster first."""
    found: list[Marked] = []
    for layer in _ORDER:
        for path in sorted((REPOSITORY / "tests" / layer).rglob("test_*.py")):
            text = path.read_text()
            if "mark.fault(" in text:
                found += _in_module(ast.parse(text), str(path.relative_to(REPOSITORY)))
    return found


def page() -> str:
    """The page, as Markdown."""
    tests: dict[str, list[Marked]] = defaultdict(list)
    for test in marked():
        for fault in test.faults:
            tests[fault].append(test)
    known = faults()
    whole = [f for f in known if tests[f] and not _missing(known[f])]
    part = [f for f in known if tests[f] and _missing(known[f])]
    none = [f for f in known if not tests[f]]
    counts = (
        f"Of {len(known)} faults, {len(whole)} are shown, {len(part)} in part, and {len(none)} by "
        f"no test yet: {', '.join(none)}.\n"
    )
    sections = [_section(fault, texts, tests[fault]) for fault, texts in known.items()]
    return "\n".join([_HEAD, counts, *sections])


def _section(fault: str, texts: dict[str, str], tests: list[Marked]) -> str:
    lines = [f"## {fault}", "", f"{texts['fault']}.", ""]
    lines += [f"- {test.sentence}: `{test.path}::{test.name}`" for test in tests]
    lines += [f"- **{word}:** {texts[word].rstrip('.')}." for word in _missing(texts)]
    return "\n".join([*lines, ""])


def _missing(texts: dict[str, str]) -> list[str]:
    return [word for word in ("open", "needs") if word in texts]


def _in_module(module: ast.Module, path: str) -> Iterator[Marked]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = [m for decorator in node.decorator_list for m in _faults_of(decorator)]
            if marks:
                yield Marked(path, node.name, tuple(marks))


def _faults_of(decorator: ast.expr) -> list[Any]:
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.fault":
        return []
    return [ast.literal_eval(argument) for argument in decorator.args]


if __name__ == "__main__":
    PAGE.write_text(page())
