"""report.json and report.html from one document. The page is one file and asks for no other."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lora_api import API_VERSION, KIND

JSON_NAME, HTML_NAME = "report.json", "report.html"


def render(document: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write both files into a folder; returns (report.json, report.html)."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_html = folder / JSON_NAME, folder / HTML_NAME
    as_json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    as_html.write_text(to_html(document))
    return as_json, as_html


def to_html(document: Mapping[str, Any]) -> str:
    """The page. What comes from users is escaped; an unknown name in the template is an error."""
    environment = Environment(
        loader=PackageLoader("lora_jobs.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("template.html.j2")
    gates = [{"observed": "", "interval": "", "message": ""} | gate for gate in document["gates"]]
    return template.render({**document, "gates": gates, "apiVersion": API_VERSION, "kind": KIND})
