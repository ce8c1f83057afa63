"""Text that ships with every CPython: prose to train the base on, code to train the adapter on.

Documents are of similar size, so that each weighs the same in a paired comparison, and whole files
are held out, so that no evaluation record has a twin in training.
"""

import ast
import hashlib
import random
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

DOCUMENT_CHARACTERS = 800
HELD_OUT_PER_FILE = 3
SEED = 20_240_601
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "encodings",
            "pydoc_data"}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Disjoint documents of one domain."""

    train: list[str]
    held_out: list[str]


def prose(held_out: int) -> Corpus:
    """English about Python: the language reference's topics and the library's docstrings."""
    texts = [topics[key] for key in sorted(topics)]
    texts += ["\n\n".join(_split_file(file)[0]) for file in _library()]
    return _split(texts, held_out)


def code(held_out: int) -> Corpus:
    """Python source of the standard library, without its docstrings."""
    return _split([_split_file(file)[1] for file in _library()], held_out)


def _library() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [f for f in sorted(root.rglob("*.py")) if not _SKIPPED & set(f.relative_to(root).parts)]
    # _sysconfigdata is one table of compiler flags, no code that anyone wrote.
    written = [f for f in files if not f.name.startswith("_sysconfigdata")]
    return [f for f in written if f.stat().st_size > 2 * DOCUMENT_CHARACTERS]


@cache
def _split_file(file: Path) -> tuple[list[str], str]:
    """(docstrings, source without them) of a module; nothing of one that cannot be read."""
    try:
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError):
        return [], ""
    docstrings = []
    lines: list[str] = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is None:
                continue
            docstrings.append(text)
            first = node.body[0]
            for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                lines[number] = ""
    return docstrings, "".join(lines)


def _documents(text: str, seen: set[bytes]) -> list[str]:
    """Runs of whole lines of about `DOCUMENT_CHARACTERS`; no record that was seen before."""
    documents = []
    kept, size = [], 0
    for line in text.splitlines(keepends=True):
        kept.append(line)
        size += len(line)
        if size >= DOCUMENT_CHARACTERS:
            document = "".join(kept)
            kept, size = [], 0
            key = hashlib.sha256(" ".join(document.casefold().split()).encode()).digest()
            if key not in seen and len(document) < 1.5 * DOCUMENT_CHARACTERS:
                seen.add(key)
                documents.append(document)
    return documents


def _split(texts: list[str], held_out: int) -> Corpus:
    seen: set[bytes] = set()
    groups = [documents for text in texts if (documents := _documents(text, seen))]
    random.Random(SEED).shuffle(groups)
    kept: list[str] = []
    while len(kept) < held_out:
        kept += groups.pop()[:HELD_OUT_PER_FILE]
    return Corpus(train=[d for group in groups for d in group], held_out=kept[:held_out])
