"""Whose the object is, and the change that Git gets."""

from typing import Any

import pytest
import yaml

from lora_cli.gitops import git_patch, owner_of


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({}, None),
        ({"labels": {"app.kubernetes.io/instance": "helm-says-so-too"}}, None),
        ({"managedFields": [{"manager": "kubectl-client-side-apply"}]}, None),
        ({"labels": {"argocd.argoproj.io/instance": "models"}}, "Argo CD (models)"),
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "models:g/k:team/demo"}},
            "Argo CD (models)",
        ),
        ({"managedFields": [{"manager": "argocd-controller"}]}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux (apps)"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "apps"}}, "Flux (apps)"),
        ({"managedFields": [{"manager": "kustomize-controller"}]}, "Flux"),
        ({"labels": None, "annotations": None, "managedFields": None}, None),
    ],
)
def test_labels_annotations_and_managers_tell_who_syncs(
    metadata: dict[str, Any], owner: str | None
) -> None:
    found = owner_of(metadata)
    assert (str(found) if found else None) == owner


def test_the_change_for_git_names_the_object_and_nothing_else() -> None:
    text = git_patch(
        {"name": "demo", "namespace": "team", "uid": "1", "labels": {"a": "b"}}, {"suspend": True}
    )
    assert yaml.safe_load(text) == {
        "apiVersion": "lora-operator.dev/v1alpha1",
        "kind": "LoRADeployment",
        "metadata": {"name": "demo", "namespace": "team"},
        "spec": {"suspend": True},
    }
