"""Whose the object is: a change of what a GitOps tool holds belongs into Git."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from lora_api import API_VERSION, KIND

_ARGO_CD, _FLUX = "Argo CD", "Flux"
_LABELS = {
    "argocd.argoproj.io/instance": _ARGO_CD,
    "kustomize.toolkit.fluxcd.io/name": _FLUX,
    "helm.toolkit.fluxcd.io/name": _FLUX,
}
_TRACKING = "argocd.argoproj.io/tracking-id"
_MANAGERS = {
    "argocd-controller": _ARGO_CD,
    "argocd-application-controller": _ARGO_CD,
    "kustomize-controller": _FLUX,
    "helm-controller": _FLUX,
}


class Owner(NamedTuple):
    """The tool that syncs an object, and by what name it knows the source."""

    tool: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.tool} ({self.name})" if self.name else self.tool


def owner_of(metadata: Mapping[str, Any]) -> Owner | None:
    """Who syncs the object from Git, by its labels, annotations and field managers."""
    labels: Mapping[str, str] = metadata.get("labels") or {}
    for label, tool in _LABELS.items():
        if label in labels:
            return Owner(tool, labels[label])
    if tracked := (metadata.get("annotations") or {}).get(_TRACKING):
        return Owner(_ARGO_CD, tracked.partition(":")[0])
    for entry in metadata.get("managedFields") or ():
        if tool := _MANAGERS.get(entry.get("manager", ""), ""):
            return Owner(tool)
    return None


def git_patch(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """The change as YAML, for the file in Git or as a patch of a kustomization."""
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {key: metadata[key] for key in ("name", "namespace")},
        "spec": dict(spec),
    }
    return yaml.safe_dump(document, sort_keys=False)
