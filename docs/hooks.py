"""What mkdocs.yml cannot say: `SECTION: folder/` in the navigation is every page of that folder."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """The navigation with each folder in it replaced by its pages, in the order of their names."""
    docs = Path(config["docs_dir"])
    config["nav"] = [_expanded(entry, docs) for entry in config["nav"]]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    [(title, content)] = entry.items()
    if isinstance(content, str) and content.endswith("/"):
        pages = sorted((docs / content).glob("*.md"))
        return {title: [str(page.relative_to(docs)) for page in pages]}
    return entry
