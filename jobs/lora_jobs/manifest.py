"""A LoRADeployment from a YAML file, as the local run takes it: the same object, checked here.

There is no API server to prune or to refuse, so unknown fields are an error with their path.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lora_api import API_VERSION, KIND
from lora_api.jobcontract import Reason
from lora_api.profile import PROFILES, Profile, apply_profile
from lora_api.spec import ObjectSpec, Spec, parse_spec
from lora_jobs.errors import Refused

_HERE = "file://./"


@dataclass(frozen=True)
class Manifest:
    """One object of a file.

    Attributes:
        document: The spec's JSON, with `file://./` made absolute.
    """

    name: str
    namespace: str
    document: dict[str, Any]
    spec: Spec


def read_manifest(
    file: Path, store_uri: str = "", name: str = "", values: Path | None = None
) -> Manifest:
    """The file's one LoRADeployment; other objects beside it are left alone.

    Args:
        file: YAML, also of several documents.
        store_uri: Replaces `artifact.uri`.
        name: Replaces `metadata.name`.
        values: Values of the chart, whose `profiles` the object may name.

    Raises:
        Refused: There is none or more than one, or it or its profile is not valid.
    """
    found = [d for d in _documents(file) if isinstance(d, dict) and d.get("kind") == KIND]
    if len(found) != 1:
        raise _invalid(file, f"{len(found)} objects of kind {KIND}; one is needed")
    return _checked(file, found[0], store_uri, name, values)


def _checked(
    file: Path, document: dict[str, Any], store_uri: str, name: str, values: Path | None
) -> Manifest:
    if document.get("apiVersion") != API_VERSION:
        raise _invalid(file, f"apiVersion is {document.get('apiVersion')}, not {API_VERSION}")
    unknown = set(document) - {"apiVersion", "kind", "metadata", "spec", "status"}
    metadata = document.get("metadata") or {}
    name = name or metadata.get("name", "")
    if unknown or not name:
        raise _invalid(
            file, f"unknown field {min(unknown)}" if unknown else "metadata.name is empty"
        )
    raw = _absolute(document.get("spec") or {}, file.resolve().parent)
    if store_uri:
        raw["artifact"] = {**(raw.get("artifact") or {}), "uri": store_uri}
    try:
        asked = ObjectSpec.model_validate(raw)
        if asked.profile:
            asked = apply_profile(asked, _profile(file, asked.profile, values))
        spec = parse_spec(asked.to_json())
    except ValidationError as error:
        raise _invalid(file, "; ".join(_problems(error))) from None
    return Manifest(name, metadata.get("namespace", "default"), raw, spec)


def _profile(file: Path, name: str, values: Path | None) -> Profile:
    """The profile of that name: its gates are floors, so nothing is judged without it."""
    found = [d for d in _documents(values) if isinstance(d, dict)] if values else []
    given = {key: value for d in found for key, value in (d.get("profiles") or {}).items()}
    if name not in given:
        raise _invalid(
            file,
            f"spec.profile names {name}; give the chart's values that have it with --profiles, or "
            "remove it",
        )
    try:
        return PROFILES.validate_python({name: given[name] or {}})[name]
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise Refused(
            Reason.INVALID_INPUT, f"{values}: profiles.{where}: {wrong['msg']}; correct the file"
        ) from None


def _documents(file: Path) -> list[Any]:
    try:
        return list(yaml.safe_load_all(file.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _invalid(file, str(error)) from None


def _problems(error: ValidationError) -> list[str]:
    """`spec.a.b: what is wrong`, one a problem."""
    return [
        f"spec.{'.'.join(map(str, e['loc']))}: "
        + ("unknown field" if e["type"] == "extra_forbidden" else e["msg"])
        for e in error.errors()
    ]


def _absolute(value: Any, folder: Path) -> Any:
    """The same tree with `file://./x` as a path of the file's folder."""
    if isinstance(value, dict):
        return {key: _absolute(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(_HERE):
        return f"file://{folder / value.removeprefix(_HERE)}"
    return value


def _invalid(file: Path, what: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, f"{file}: {what}; correct the file")
