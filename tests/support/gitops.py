"""What GitOps tools make of an object, each asked with an engine of its own kind."""

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy.adapter import json_to_cel
from lupa.lua51 import LuaRuntime

from localcluster import tools

Json = dict[str, Any]
REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs/gitops.md"
HEALTH = REPOSITORY / "deploy/gitops/argocd/lora-operator.dev/LoRADeployment/health.lua"


def in_argo_cd(found: Json) -> Json:
    """The health check's answer, from a Lua 5.1 as Argo CD's is, without its libraries."""
    lua = LuaRuntime()
    check = lua.eval(f"function(obj, ipairs) setfenv(1, {{obj = obj, ipairs = ipairs}})"
                     f" {HEALTH.read_text()} end")  # fmt: skip
    return dict(check(lua.table_from(found, recursive=True), lua.globals().ipairs))


def in_flux(found: Json) -> str:
    """As RFC-0009 has it: the generation, then inProgress, failed, current, else InProgress."""
    status = found.get("status", {})
    generation = found["metadata"]["generation"]
    if "status" not in found:
        return "Unknown"  # no expression can be evaluated
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    activation = json_to_cel(found)
    for name, verdict in (
        ("inProgress", "InProgress"),
        ("failed", "Failed"),
        ("current", "Current"),
    ):
        if bool(expressions()[name].evaluate(activation)):
            return verdict
    return "InProgress"


def by_kstatus(*found: Json) -> list[str]:
    """What the library says of each."""
    program = tools.ensure(tools.KSTATUS) / "kstatus"
    done = subprocess.run(
        [str(program)], input=json.dumps(found), capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    return [answer["status"] for answer in json.loads(done.stdout)]


def documented(kind: str) -> Json:
    """The object of this kind in the page for users."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    [found] = [block for block in map(yaml.safe_load, blocks) if block["kind"] == kind]
    shown: Json = found
    return shown


@cache
def expressions() -> dict[str, Any]:
    [checks] = documented("Kustomization")["spec"]["healthCheckExprs"]
    environment = celpy.Environment()
    return {
        name: environment.program(environment.compile(checks[name]))
        for name in ("inProgress", "failed", "current")
    }
