"""The Helm chart as tests see it: rendered by the pinned helm, as documents.

`python -m chart` writes its README from the comments of values.yaml, and into values.schema.json
what a profile may hold.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from localcluster import tools
from lora_api.valuesschema import profile_schema

Json = dict[str, Any]
CHART = Path(__file__).parents[2] / "charts/lora-operator"
SCHEMA = "values.schema.json"
HOOK = "helm.sh/hook"
RELEASE, NAMESPACE = "lora-operator", "lora-system"
EVERYTHING: Json = {
    "commonLabels": {"team": "models"},
    "fullnameOverride": "models-operator",
    "allowed": {
        "images": ["registry.example/*"],
        "serviceAccounts": [],
        "secrets": ["s3-*", "hub"],
        "claims": ["models-*"],
        "endpoints": ["*.storage.internal", "huggingface.co"],
        "runtimes": ["VLLM"],
    },
    "profiles": {
        "gpu": {
            "artifact": {"uri": "s3://models/lora"},
            "gates": {"taskQuality": {"maxIncrease": "3%"}},
            "serving": {"accelerator": {"product": "NVIDIA-L40S"}},
        }
    },
    "clusterName": "eu-1",
    "runbooksUrl": "https://docs.example/lora/runbooks.html",
    "replicas": 2,
    "leaderElection": {"enabled": True, "leaseSeconds": 30},
    "kueue": {"enabled": True, "apiVersion": "kueue.x-k8s.io/v1beta1"},
    "images": {
        "serving": {"VLLM": "registry.example/vllm@sha256:1", "TRANSFORMERS": "serve:1"},
        "pullSecrets": [{"name": "registry"}],
    },
    "logging": {"level": "DEBUG", "format": "json"},
    "tracing": {"endpoint": "http://collector.monitoring:4318"},
    "serviceAccount": {"name": "runner", "annotations": {"example.com/role": "none"}},
    "podLabels": {"tier": "control"},
    "podAnnotations": {"example.com/scrape": "false"},
    "health": {"port": 9000},
    "metrics": {"port": 9001, "service": {"enabled": True, "annotations": {"example.com/a": "b"}}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
                ]
            }
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
        }
    ],
    "priorityClassName": "system-cluster-critical",
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
    "networkPolicy": {
        "enabled": True,
        "apiServerCIDRs": ["10.0.0.1/32", "fd00::1/128"],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
        "pods": {
            "enabled": True,
            "egressPorts": [9000],
            "egressCIDRs": ["10.1.0.0/16"],
            "clientsFrom": [{"namespaceSelector": {"matchLabels": {"team": "gateway"}}}],
        },
    },
}
"""Values that turn all of it on that an API server knows by itself."""
MONITORED: Json = EVERYTHING | {
    "metrics": {
        **EVERYTHING["metrics"],
        "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"prometheus": "main"}},
        "prometheusRule": {
            "enabled": True,
            "labels": {"prometheus": "main"},
            "runbookPage": "https://docs.example/alerts",
        },
        "dashboard": {"enabled": True},
    }
}
"""And what the Prometheus operator and Grafana read."""
NOTHING: Json = {
    "crds": {"enabled": False, "keep": False},
    "metrics": {"enabled": False},
    "rbac": {"create": False},
    "serviceAccount": {"create": False, "name": "existing"},
}
"""Values that turn all off that can be."""


class HelmError(AssertionError):
    """helm refused; the message is its stderr."""


def helm(*arguments: str, values: Json | None = None, kubeconfig: Path | None = None) -> str:
    """Run the pinned helm and return its stdout.

    Raises:
        HelmError: It exited non-zero.
    """
    given = [] if values is None else ["--values", "-"]
    environment = os.environ | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})
    done = subprocess.run(
        [str(tools.ensure(tools.HELM) / "helm"), *arguments, *given, "--namespace", NAMESPACE],
        input=json.dumps(values), env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise HelmError(done.stderr.strip())
    return done.stdout


def render(values: Json | None = None, release: str = RELEASE) -> list[Json]:
    """The documents that are installed.

    Raises:
        HelmError: The values do not fit the schema, or a template fails.
    """
    return _documents(helm("template", release, str(CHART), "--skip-tests", values=values or {}))


def render_all(values: Json | None = None) -> list[Json]:
    """The same, and what `helm test` makes."""
    return _documents(helm("template", RELEASE, str(CHART), values=values or {}))


def _documents(text: str) -> list[Json]:
    """The CRD alone takes PyYAML's own parser a quarter of a second."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def render_tests(values: Json | None = None) -> list[Json]:
    """What `helm test` makes, alone."""
    hooks = [d for d in render_all(values) if HOOK in d["metadata"].get("annotations", {})]
    assert {d["metadata"]["annotations"][HOOK] for d in hooks} == {"test"}
    return hooks


def notes(values: Json | None = None) -> str:
    """What an install says at its end."""
    told = helm("install", RELEASE, str(CHART), "--dry-run=client", values=values or {})
    return told.partition("NOTES:")[2]


def of_kind(documents: list[Json], kind: str) -> list[Json]:
    """Those of one kind."""
    return [document for document in documents if document["kind"] == kind]


def operator_pod(documents: list[Json]) -> Json:
    """The template of the operator's pod."""
    [deployment] = of_kind(documents, "Deployment")
    pod: Json = deployment["spec"]["template"]
    return pod


def chart_rules(values: Json | None = None) -> list[Json]:
    """The operator's rights; they are the same for Role and ClusterRole."""
    [role] = of_kind(render(values), "ClusterRole")
    rules: list[Json] = role["rules"]
    return rules


def lease_rules() -> list[Json]:
    """The operator's rights on the Lease by which replicas elect a leader, named `RELEASE`."""
    [role] = of_kind(render({"leaderElection": {"enabled": True}}), "Role")
    rules: list[Json] = role["rules"]
    return rules


def readme() -> str:
    """The chart's README as helm-docs writes it.

    Raises:
        HelmError: It could not.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "README.md"
        shutil.copytree(CHART, folder, dirs_exist_ok=True)
        written.unlink(missing_ok=True)
        done = subprocess.run(
            [str(tools.ensure(tools.HELM_DOCS) / "helm-docs"), "--chart-search-root", folder,
             "--sort-values-order", "file"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if not written.is_file():  # its exit status is 0 all the same
            raise HelmError(done.stderr.strip())
        return written.read_text()


def values_schema() -> str:
    """values.schema.json with the schema of a profile as the model has it now."""
    profile = _folded(profile_schema(), 4)
    made, times = re.subn(
        r'(?<=^    "profile": )\{.*?^    \}$', lambda _: profile, (CHART / SCHEMA).read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )  # fmt: skip
    assert times == 1
    return made


def _folded(node: Any, indent: int) -> str:
    """JSON with what is short on one line."""
    line = json.dumps(node)
    if len(line) + indent <= 110 or not isinstance(node, dict):
        return line
    inner, end = " " * (indent + 2), "\n" + " " * indent
    fields = (f"{inner}{json.dumps(key)}: {_folded(v, indent + 2)}" for key, v in node.items())
    return "{\n" + ",\n".join(fields) + end + "}"


if __name__ == "__main__":
    (CHART / SCHEMA).write_text(values_schema())
    (CHART / "README.md").write_text(readme())
