"""What the documentation shows users: its code blocks, commands, objects and names."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lora_api import KIND

Json = dict[str, Any]
REPOSITORY = Path(__file__).parents[2]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}\S.*\n?)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_ENDS_A_COMMAND = {"|", "&", "&&", "||", ";", ">"}


@dataclass(frozen=True)
class Page:
    """One file that users read.

    Attributes:
        name: Its path in the repository.
    """

    name: str
    text: str

    def blocks(self, language: str) -> list[str]:
        """Fenced blocks of a language."""
        return [body for lang, body in _FENCED.findall(self.text) if lang == language]

    @property
    def spans(self) -> list[str]:
        """Inline code, outside of blocks."""
        return _SPAN.findall(_FENCED.sub("", self.text))

    @property
    def shell_lines(self) -> list[str]:
        """Lines that users type: of shell blocks, of indented blocks, and inline code."""
        prose = _FENCED.sub("", self.text)
        blocks = [
            *self.blocks("sh"),
            *(b.replace("\n    ", "\n") for b in _INDENTED.findall(prose)),
        ]
        joined = "\n".join(blocks).replace("\\\n", " ")
        return [*(line.strip() for line in joined.splitlines()), *self.spans]

    def commands(self, *program: str) -> Iterator[list[str]]:
        """What follows a program's words on every line that names it, up to a pipe or a comment."""
        for line in self.shell_lines:
            if words := _words(line):
                yield from _after(words, program)

    def objects(self) -> list[Json]:
        """Every LoRADeployment in a YAML block."""
        documents = [d for block in self.blocks("yaml") for d in yaml.safe_load_all(block)]
        return [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]


def pages() -> list[Page]:
    """README, the chart's README, CONTRIBUTING and everything in docs/."""
    files = [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        REPOSITORY / "charts/lora-operator/README.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]
    return [Page(str(file.relative_to(REPOSITORY)), file.read_text()) for file in files]


def objects() -> list[tuple[str, Json]]:
    """(page and number, object) of every LoRADeployment in the documentation."""
    return [(f"{p.name}#{n}", o) for p in pages() for n, o in enumerate(p.objects(), start=1)]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a block of another language, or half a line
        return []


def _after(words: list[str], program: tuple[str, ...]) -> Iterator[list[str]]:
    """The arguments of `program`, where it is what the line starts after its variables."""
    while words and "=" in words[0]:
        words = words[1:]
    head = tuple(word.rpartition("/")[2] for word in words[: len(program)])
    if head == program:
        rest = words[len(program) :]
        end = next((i for i, word in enumerate(rest) if word in _ENDS_A_COMMAND), len(rest))
        yield rest[:end]
