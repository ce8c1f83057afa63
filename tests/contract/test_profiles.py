"""Profiles on their way: values of the chart, the operator's environment, an object's spec."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import HelmError, operator_pod, render
from documented import pages
from lora_api.profile import PROFILES
from lora_api.spec import JobStage, ObjectSpec, Spec, parse_spec
from lora_operator.allowed import Allowed, refusal_of
from lora_operator.asking import spec_of
from lora_operator.failures import Trouble
from lora_operator.settings import Settings

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Json:
    document: Json = yaml.safe_load((EXAMPLES / name).read_text())
    return document


def installed(values: Json) -> Settings:
    """The settings of an operator that the chart installed with these values."""
    [container] = operator_pod(render(values))["spec"]["containers"]
    return Settings.from_environment({e["name"]: e["value"] for e in container["env"]})


def test_the_example_is_four_lines_and_its_profile_gives_the_rest() -> None:
    asked, settings = example("profile.yaml")["spec"], installed(example("profile-values.yaml"))
    assert set(asked) == {"profile", "baseModel", "adapters", "quantization", "evaluation"}
    spec = spec_of(asked, settings.profiles)
    assert isinstance(spec, Spec)
    assert spec.artifact.uri == "s3://models/lora"
    assert [c.name for c in spec.connections or ()] == ["models", "hub"]
    assert spec.gates.task_quality.max_increase == "3%"
    assert spec.serving.image == "registry.internal/lora/vllm:1.0"
    assert spec.serving.accelerator.product == "NVIDIA-L40S"
    assert spec.jobs.defaults.labels == {"kueue.x-k8s.io/queue-name": "team-queue"}
    memory, tolerated = {"memory": "64Gi"}, spec.jobs.defaults.scheduling.tolerations
    quantize = spec.jobs.for_stage(JobStage.QUANTIZE)[0]
    assert quantize.resources is not None
    assert (quantize.resources.requests, quantize.tolerations) == (memory, tolerated)
    assert tolerated


def test_the_small_demo_with_its_profile_is_the_demo_and_finds_all_of_its_results() -> None:
    settings = installed(example("demo-profile-values.yaml"))
    small = spec_of(example("demo-small.yaml")["spec"], settings.profiles)
    assert isinstance(small, Spec)
    assert small.model_copy(update={"profile": ""}) == parse_spec(example("demo.yaml")["spec"])


def test_the_example_is_allowed_by_its_own_values_and_not_without_them() -> None:
    settings = installed(example("profile-values.yaml"))
    spec = spec_of(example("profile.yaml")["spec"], settings.profiles)
    assert isinstance(spec, Spec)
    assert refusal_of(spec, settings.allowed, ()) is None
    for closed in ("images", "service_accounts", "secrets", "endpoints"):
        lists: dict[str, Any] = {closed: ("mine-*",)}
        assert refusal_of(spec, replace(settings.allowed, **lists), ()) is not None
    assert refusal_of(spec, Allowed(), ()) is not None


def test_what_yaml_and_helm_make_of_a_profile_is_what_was_written() -> None:
    scheduling = {
        "resources": {"requests": {"cpu": 4, "nvidia.com/gpu": "1"}},
        "tolerations": [
            {"key": "<gpu & co>", "operator": "Exists", "tolerationSeconds": 3_000_000}
        ],
    }
    profiles = {"gpu": {"serving": {"scheduling": scheduling}}, "empty": {}}
    assert installed({"profiles": profiles}).profiles == PROFILES.validate_python(profiles)


@pytest.mark.parametrize(
    "profile",
    [
        {"artifacts": {"uri": "s3://a/b"}},
        {"artifact": {"uri": "ftp://a/b"}},
        {"artifact": {"connection": "models"}},
        {"gates": {"taskQuality": {"maxIncrease": "5"}}},
        {"gates": {"taskQuality": {"min": "5%"}}},
        {"gates": {"taskQuality": {"mode": "Off"}}},
        {"serving": {"replicas": 2}},
        {"serving": {"images": {"TGI": "x"}}},
        {"serving": {"scheduling": {"resources": {"limits": {"cpu": 0.5}}}}},
        {"connections": [{"name": "Models", "s3": {}}]},
        {"connections": [{"name": "m", "s3": {"secretRef": {"key": "x"}}}]},
        {"jobs": {"defaults": {"timeout": "8h"}}},
        {"jobs": {"stages": [{"name": "training", "scheduling": {}}]}},
    ],
    ids=str,
)
def test_helm_refuses_a_profile_that_the_operator_would_not_start_with(profile: Json) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PROFILES.validate_python({"gpu": profile})
    with pytest.raises(HelmError, match="values don't meet the specifications"):
        render({"profiles": {"gpu": profile}})


def test_a_profile_has_a_name_that_an_object_can_say() -> None:
    with pytest.raises(HelmError, match="values don't meet the specifications"):
        render({"profiles": {"GPU": {}}})


def test_the_operator_does_not_start_with_a_profile_that_it_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"gpu\.serving\.replicas"):
        Settings.from_environment(
            {
                "LORA_OPERATOR_JOBS_IMAGE": "jobs",
                "LORA_OPERATOR_QUANTIZE_IMAGE": "quantize",
                "LORA_OPERATOR_PROFILES": '{"gpu": {"serving": {"replicas": 2}}}',
            }
        )


def test_profiles_in_the_docs_are_profiles_and_complete_the_objects_that_name_them() -> None:
    shown: dict[str, Any] = {}
    asked: list[Json] = []
    for page in pages():
        for block in page.blocks("yaml"):
            documents = [d for d in yaml.safe_load_all(block) if isinstance(d, dict)]
            shown |= {k: v for d in documents for k, v in d.get("profiles", {}).items()}
        asked += [o["spec"] for o in page.objects() if o["spec"].get("profile")]
    profiles = PROFILES.validate_python(shown)
    assert asked
    for spec in asked:
        assert ObjectSpec.model_validate(spec).artifact is None
        assert not isinstance(spec_of(spec, profiles), Trouble)
