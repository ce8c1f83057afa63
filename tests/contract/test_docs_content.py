"""What the documentation tells can be done: its objects, commands, fields, tests and figures."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperArgument, TyperGroup
from typer.exceptions import TyperException

from documented import REPOSITORY, Page, objects, pages
from lora_api import API_VERSION
from lora_api.crd import custom_resource_definition
from lora_api.runbooks import RUNBOOKS
from lora_api.spec import ObjectSpec, parse_spec
from lora_cli.app import app as plugin
from lora_jobs.cli import app as stage_programs
from lora_jobs.intervals.blocks import t_quantile
from lora_operator.metrics import Metrics

Json = dict[str, Any]
PAGES, OBJECTS = pages(), objects()
SCHEMA: Json = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def page(name: str) -> Page:
    return next(p for p in PAGES if p.name == name)


def commands(*program: str) -> list[tuple[str, list[str]]]:
    """(page, arguments), where there are any."""
    return [(p.name, words) for p in PAGES for words in p.commands(*program) if words]


# --- objects -------------------------------------------------------------------------------------


def test_the_pages_for_users_show_whole_objects() -> None:
    shown = {name.partition("#")[0] for name, _ in OBJECTS}
    assert {"README.md", "docs/quickstart.md", "docs/tasks.md"} <= shown


@pytest.mark.parametrize("shown", [o for _, o in OBJECTS], ids=[name for name, _ in OBJECTS])
def test_an_object_in_the_docs_is_one_that_the_operator_takes(shown: Json) -> None:
    assert shown["apiVersion"] == API_VERSION
    assert set(shown) == {"apiVersion", "kind", "metadata", "spec"}
    asked = ObjectSpec.model_validate(shown["spec"])
    assert asked.profile or parse_spec(shown["spec"])  # test_profiles completes the others


def test_every_yaml_block_is_yaml() -> None:
    for found in PAGES:
        for block in found.blocks("yaml"):
            assert list(yaml.safe_load_all(block)), found.name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_a_link_from_outside_of_the_site_leads_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page(name).text)
    near = [t for t in targets if "://" not in t]
    assert near or name != "README.md"
    assert [t for t in near if not (REPOSITORY / t).exists()] == []


# --- commands ------------------------------------------------------------------------------------


def parsed(group: TyperGroup, words: list[str]) -> str:
    """What is wrong with a command line, as its own parser says; nothing is run."""
    verb, *arguments = words
    command = group.commands.get(verb)
    if command is None:
        return "" if verb == "--help" else f"there is no verb {verb}"
    if not arguments or "--help" in arguments:
        return ""  # prose names a verb
    context = typer.Context(command, info_name=verb)
    try:
        given, left, _ = command.make_parser(context).parse_args(args=list(arguments))
    except TyperException as error:
        return str(error)
    missing = [
        p.name for p in command.params
        if p.required and not given.get(p.name or "") and isinstance(p, TyperArgument)
    ]  # fmt: skip
    return f"left over: {left}" if left else f"missing: {missing}" if missing else ""


def verbs_of(app: typer.Typer) -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


PROGRAMS = {"kubectl lora": plugin, "lora-jobs": stage_programs}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_in_the_docs_is_understood(program: str) -> None:
    group = verbs_of(PROGRAMS[program])
    found = commands(*program.split())
    wrong = [(name, words, parsed(group, words)) for name, words in found]
    assert [w for w in wrong if w[-1]] == []
    assert len(found) >= 5


@pytest.mark.parametrize(
    "words", [["statuss", "x"], ["logs", "-f"], ["status", "x", "--wach"], ["logs", "a", "b", "c"]]
)
def test_a_command_that_there_is_not_would_be_noticed(words: list[str]) -> None:
    assert parsed(verbs_of(plugin), words)


def test_every_verb_of_the_plugin_is_in_the_docs() -> None:
    assert (
        set(verbs_of(plugin).commands) - {words[0] for _, words in commands("kubectl", "lora")}
        == set()
    )


def test_every_reason_that_a_command_explains_is_one() -> None:
    reasons = [words[1] for _, words in commands("kubectl", "lora") if words[0] == "explain"]
    assert reasons
    assert set(reasons) - set(RUNBOOKS) - {"REASON"} == set()


def test_every_make_target_in_the_docs_is_one() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    asked = {(name, words[0]) for name, words in commands("make")}
    assert {target for _, target in asked} >= {"demo", "test", "docs"}
    assert [a for a in asked if a[1] not in targets] == []


def test_every_value_that_helm_is_given_is_one() -> None:
    values = yaml.safe_load((REPOSITORY / "charts/lora-operator/values.yaml").read_text())
    found = [
        word.partition("=")[0]
        for _, words in commands("helm")
        for before, word in pairwise(words)
        if before == "--set"
    ]
    assert found
    assert [path for path in found if not _has(values, path.split("."))] == []


def _has(values: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


# --- fields, metrics, tests ----------------------------------------------------------------------

_TOP = set(SCHEMA["properties"]["spec"]["properties"])
_FIELD = re.compile(r"^(spec\.|status\.)?[a-z]\w*(\.[a-z]\w*)*(\[\])?(: .*)?$")


def fields_of(found: Page) -> Iterator[list[str]]:
    """Inline code that reads as a field: it starts with `spec.`, `status.`, or a field of spec."""
    for span in found.spans:
        path = span.partition(":")[0].replace("[]", "").split(".")
        if not _FIELD.match(span) or len(path) < 2 or path[-1] == "json":
            continue
        if path[0] in ("spec", "status"):
            yield path
        elif path[0] in _TOP:
            yield ["spec", *path]


def _is_field(path: list[str]) -> bool:
    schema = SCHEMA
    for name in path:
        schema = schema.get("items", schema)
        if "additionalProperties" in schema:
            return True
        if name not in schema.get("properties", {}):
            return False
        schema = schema["properties"][name]
    return True


def test_no_field_is_documented_that_the_crd_lacks() -> None:
    shown = [(p.name, path) for p in PAGES for path in fields_of(p)]
    assert len(shown) > 30
    assert [f"{name}: {'.'.join(path)}" for name, path in shown if not _is_field(path)] == []


def test_every_metric_in_the_docs_is_exposed() -> None:
    exposed = set(re.findall(r"^# TYPE (\w+)", Metrics().exposition().decode(), re.MULTILINE))
    shown = [s for s in page("docs/operations.md").spans if s.startswith("lora_operator_")]
    assert shown
    assert [name for name in shown if name not in exposed] == []


def test_every_test_that_the_docs_name_is_there() -> None:
    named = {
        (found.name, file, test)
        for found in PAGES
        for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", found.text)
    }
    assert len(named) > 30
    for name, file, test in named:
        text = (REPOSITORY / file).read_text() if (REPOSITORY / file).is_file() else None
        assert text is not None, f"{name} names {file}"
        assert not test or f"def {test}(" in text, f"{name} names {file}::{test}"


def test_the_page_of_the_verdict_calculates_as_the_benchmark_does() -> None:
    table = page("docs/verdict.md").text.partition("| blocks | noise")[2]
    noises = [float(n) / 100 for n in re.findall(r"(\d+) %", table.splitlines()[0])]
    rows = re.findall(r"^\| (\d+) \| ([\d.% |]+) \|$", table, re.MULTILINE)
    assert len(rows) == 4
    for blocks, cells in rows:
        count = int(blocks)
        errors = [t_quantile(count - 1) * noise / math.sqrt(count) for noise in noises]
        assert cells.split(" | ") == [f"{math.expm1(e) * 100:.1f}%" for e in errors]
