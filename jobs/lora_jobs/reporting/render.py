"""report.json and report.html from one document. The page is one file and asks for no other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lora_api import API_VERSION, KIND
from lora_api.jobcontract import Reason
from lora_api.report import SCHEMA_VERSION, Report
from lora_jobs.errors import Refused
from lora_jobs.reporting.charts import Chart, charts

JSON_NAME, HTML_NAME = "report.json", "report.html"


def render(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write both files into a folder; returns (report.json, report.html)."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_html = folder / JSON_NAME, folder / HTML_NAME
    as_json.write_text(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    as_html.write_text(to_html(report))
    return as_json, as_html


def read_report(file: Path) -> Report:
    """A report.json of this schema.

    Raises:
        Refused: It is none, or of another schema.
    """
    try:
        document: dict[str, Any] = json.loads(file.read_text())
        schema = document.get("schemaVersion")
    except (OSError, ValueError, AttributeError) as error:
        raise Refused(Reason.INVALID_INPUT, f"{file} is no report: {error}") from None
    if schema != SCHEMA_VERSION:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{file} has schema {schema}, and {SCHEMA_VERSION} is read here: run the object again "
            "on the same store, which repeats no finished stage and reports anew",
        )
    known = {k: v for k, v in document.items() if k in _FIELDS}
    try:
        return Report.model_validate(known)
    except ValueError as error:
        raise Refused(Reason.INVALID_INPUT, f"{file} is no report: {error}") from None


_FIELDS = {field.alias for field in Report.model_fields.values()}


def to_html(report: Report, draw: Callable[[Report], list[Chart]] = charts) -> str:
    """The page. What comes from users is escaped; an unknown name in the template is an error."""
    template = page_environment().get_template("template.html.j2")
    again = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": report.name.split("/")[-1]},
        "spec": report.spec,
    }
    return template.render(report=report, charts=draw(report), again=again)


def page_environment() -> Environment:
    """The templates of this folder."""
    return Environment(
        loader=PackageLoader("lora_jobs.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
