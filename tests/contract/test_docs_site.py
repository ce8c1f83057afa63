"""The documentation builds as a site, its links hold, and a reader's browser asks nobody else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from lora_api.runbooks import RUNBOOKS, anchor

REPOSITORY = Path(__file__).parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements whose addresses a browser asks for by itself."""


def build(sources: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does. Not `--quiet`: strict counts only the warnings that it would show."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    settings = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=sources, env=settings, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(REPOSITORY, folder)
    assert built.returncode == 0, built.stderr
    return folder


class _Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") == "canonical":
            return
        address = given.get(LOADS.get(tag, ""))
        if address:
            self.addresses.append(address)


def loaded_by(page: Path) -> list[str]:
    parser = _Loaded()
    parser.feed(page.read_text())
    return parser.addresses


def _nav_pages(nav: object) -> Iterator[str]:
    for entry in nav if isinstance(nav, list) else [nav]:
        if isinstance(entry, dict):
            yield from _nav_pages(list(entry.values()))
        elif isinstance(entry, list):
            yield from _nav_pages(entry)
        else:
            yield str(entry)


@pytest.mark.parametrize("target", ["runbooks.md#no-such-reason", "no-such-page.md"])
def test_a_dead_link_or_anchor_is_an_error(tmp_path: Path, target: str) -> None:
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    shutil.copy(REPOSITORY / "mkdocs.yml", tmp_path)
    page = tmp_path / "docs/faq.md"
    page.write_text(f"{page.read_text()}\n[More]({target})\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert target in built.stderr


def test_every_page_of_the_navigation_is_built(site: Path) -> None:
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    pages = [p for p in _nav_pages(config["nav"]) if p.endswith(".md")]
    assert len(pages) > 5
    assert [p for p in pages if not (site / p).with_suffix(".html").is_file()] == []


def test_every_decision_is_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text()
    decisions = [p.stem for p in (REPOSITORY / "docs/adr").glob("*.md")]
    assert [d for d in decisions if f"adr/{d}.html" not in index] == []


def test_every_reason_has_the_anchor_that_conditions_link(site: Path) -> None:
    anchors = set(re.findall(r'id="([^"]+)"', (site / "runbooks.html").read_text()))
    assert {anchor(reason) for reason in RUNBOOKS} - anchors == set()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    loaded = {page.name: loaded_by(page) for page in pages}
    assert all(loaded.values()), "a page without a style sheet: has the parser seen it?"
    away = ("http:", "https:", "//")
    assert {p: [a for a in found if a.startswith(away)] for p, found in loaded.items()} == {
        p: [] for p in loaded
    }


def test_no_style_sheet_loads_anything_from_elsewhere(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    assert [
        s.name for s in sheets if "url(http" in s.read_text() or "url(//" in s.read_text()
    ] == []
