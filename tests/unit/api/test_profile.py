"""A profile fills what is unset, never what is stated, and its gates are floors."""

from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from builders import spec_document
from lora_api.gatespec import GateMode, Gates
from lora_api.profile import GateFloors, Profile, apply_profile
from lora_api.runtimes import Runtime
from lora_api.spec import JobStage, ObjectSpec, parse_spec

Json = dict[str, Any]
STAGES = [stage.value for stage in JobStage]
MODES = [mode.value for mode in GateMode]
LIMITS = {
    "taskQuality": "maxIncrease", "gainRetained": "min", "generalQuality": "maxIncrease",
    "passRate": "maxDecrease", "fallbacks": "max", "dampingRaised": "max",
    "weightsSize": "minDecrease", "decodeSpeed": "maxDecrease", "firstToken": "maxIncrease",
}  # fmt: skip

words = st.sampled_from(["", "a", "b"])
maps = st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["1", "2"]), max_size=2)
tolerations = st.lists(st.fixed_dictionaries({"key": st.sampled_from(["gpu", "spot"])}), max_size=2)
schedulings = st.fixed_dictionaries(
    {},
    optional={
        "resources": st.fixed_dictionaries({}, optional={"limits": maps, "requests": maps}),
        "nodeSelector": maps,
        "tolerations": tolerations,
        "priorityClassName": words,
        "runtimeClassName": words,
    },
)
stages = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(STAGES[:3]), "scheduling": schedulings}),
    max_size=3,
    unique_by=lambda stage: str(stage["name"]),
)
job_defaults = st.fixed_dictionaries(
    {},
    optional={
        "scheduling": schedulings,
        "serviceAccountName": words,
        "labels": maps,
        "annotations": maps,
    },
)
jobs = st.fixed_dictionaries({}, optional={"defaults": job_defaults, "stages": stages})
connections = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["models", "hub", "other"]),
            "s3": st.fixed_dictionaries({}, optional={"region": st.sampled_from(["eu", "us"])}),
        }
    ),
    max_size=3,
    unique_by=lambda connection: str(connection["name"]),
)
artifacts = st.fixed_dictionaries(
    {"uri": st.sampled_from(["s3://one/a", "s3://two/b"])}, optional={"connection": words}
)
serving: Json = {
    "accelerator": st.fixed_dictionaries({}, optional={"product": words}),
    "serviceAccountName": words,
    "scheduling": schedulings,
}
percents = st.sampled_from(["0%", "2%", "2.0%", "5%", "12.5%", "80%", "95%"])
gates = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries({}, optional={limit: percents, "mode": st.sampled_from(MODES)})
        for name, limit in LIMITS.items()
    },
)
parts: Json = {
    "artifact": artifacts, "connections": connections, "jobs": jobs, "gates": gates,
}  # fmt: skip


@st.composite
def objects(draw: st.DrawFn) -> Json:
    """The JSON of an object's spec."""
    own: Json = {"image": words, "runtime": st.sampled_from(list(Runtime)), **serving}
    more: Json = {**parts, "serving": st.fixed_dictionaries({}, optional=own)}
    document = spec_document()
    for part in more:
        document.pop(part, None)
    return document | {"profile": "gpu"} | draw(st.fixed_dictionaries({}, optional=more))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any profile."""
    images = st.dictionaries(st.sampled_from(list(Runtime)), words, max_size=2)
    own = st.fixed_dictionaries({}, optional={"images": images, **serving})
    return Profile.model_validate(
        draw(st.fixed_dictionaries({}, optional={**parts, "serving": own}))
    )


def is_kept(stated: Any, found: Any) -> bool:
    """Whether all that is stated is found; an empty word states nothing."""
    if isinstance(stated, dict):
        return isinstance(found, dict) and all(
            value in ("", None) or is_kept(value, found.get(key)) for key, value in stated.items()
        )
    return bool(stated == found)


def named(items: list[Json] | None) -> dict[str, Json]:
    return {item["name"]: item for item in items or ()}


@given(objects(), profiles())
def test_what_the_object_states_stays(document: Json, profile: Profile) -> None:
    asked = ObjectSpec.model_validate(document)
    filled = apply_profile(asked, profile).to_json()
    before = asked.to_json()
    own, mine = before.pop("connections", None), filled.pop("connections", None)
    assert named(own).items() <= named(mine).items()
    lists = before["jobs"].pop("stages", None), filled["jobs"].pop("stages", None)
    assert all(is_kept(stage, named(lists[1])[name]) for name, stage in named(lists[0]).items())
    assert before.pop("artifact", None) in (None, filled.get("artifact"))
    del before["gates"]
    assert is_kept(before, filled)


@given(objects(), profiles())
def test_what_the_object_says_for_all_stages_holds_in_each(
    document: Json, profile: Profile
) -> None:
    asked = ObjectSpec.model_validate(document)
    filled = apply_profile(asked, profile)
    for stage in STAGES:
        stated, *times = asked.jobs.for_stage(stage)
        found, *same_times = filled.jobs.for_stage(stage)
        assert is_kept(stated.to_json(), found.to_json()), stage
        assert times == same_times


@given(objects(), profiles())
def test_twice_is_once(document: Json, profile: Profile) -> None:
    once = apply_profile(ObjectSpec.model_validate(document), profile)
    assert apply_profile(once, profile) == once


@given(objects(), profiles())
def test_no_gate_is_weaker_than_object_or_profile_has_it(document: Json, profile: Profile) -> None:
    asked = ObjectSpec.model_validate(document)
    filled = apply_profile(asked, profile).gates.to_json()
    own, floors = asked.gates.to_json(), profile.gates.to_json()
    for name, limit in LIMITS.items():
        floor = floors.get(name, own[name])
        assert MODES.index(filled[name]["mode"]) == min(
            MODES.index(own[name]["mode"]), MODES.index(floor["mode"])
        )
        strictest = max if limit.startswith("min") else min
        wanted = [own[name][limit], floor.get(limit, own[name][limit])]
        assert number(filled[name][limit]) == strictest(map(number, wanted))


@given(objects())
def test_an_empty_profile_changes_nothing(document: Json) -> None:
    asked = ObjectSpec.model_validate(document)
    assert apply_profile(asked, Profile()) == asked


@given(objects(), profiles())
def test_what_is_filled_is_read_again_as_it_is(document: Json, profile: Profile) -> None:
    filled = apply_profile(ObjectSpec.model_validate(document), profile)
    if filled.artifact is not None:
        assert ObjectSpec.model_validate(parse_spec(filled.to_json()).to_json()) == filled


def number(percent: str) -> Decimal:
    return Decimal(percent.removesuffix("%"))


def filled(profile: Json, **changes: Any) -> ObjectSpec:
    document = spec_document(**changes)
    return apply_profile(ObjectSpec.model_validate(document), Profile.model_validate(profile))


def test_an_image_is_given_to_the_runtime_that_it_is_for() -> None:
    images = {"serving": {"images": {"VLLM": "vllm:1"}}}
    assert filled(images).serving.image == ""
    assert filled(images, **{"serving.runtime": "VLLM"}).serving.image == "vllm:1"


def test_a_connection_is_never_a_mixture_of_both() -> None:
    """Or the team's credentials would be sent to an endpoint that the object chose."""
    team = {"name": "models", "s3": {"endpoint": "https://s3", "secretRef": {"name": "team"}}}
    mine = {"name": "models", "s3": {"endpoint": "https://mine"}}
    both = filled({"connections": [team]}, connections=[mine]).connections
    assert both is not None
    (found,) = both
    assert found.s3 is not None
    assert (found.s3.endpoint, found.s3.secret_ref) == ("https://mine", None)


def test_a_gate_that_a_profile_names_is_enforced_unless_it_says_otherwise() -> None:
    loose = {"gates.firstToken": {"maxIncrease": "50%", "mode": "Disabled"}}
    assert filled({"gates": {"firstToken": {"maxIncrease": "60%"}}}, **loose).gates.first_token == (
        filled({}, **{"gates.firstToken": {"maxIncrease": "50%"}}).gates.first_token
    )


def test_every_gate_has_a_floor_and_the_limit_that_it_has() -> None:
    assert set(GateFloors.model_fields) <= set(Gates.model_fields)
    for name, field in GateFloors.model_fields.items():
        floor, _ = get_args(field.annotation)
        gate = Gates.model_fields[name].annotation
        assert gate is not None
        assert set(floor.model_fields) == set(gate.model_fields), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"benchmark": {"precision": "1%"}},
        {"serving": {"replicas": 3}},
        {"jobs": {"stages": [{"name": "quantize", "timeout": "8h", "scheduling": {}}]}},
        {"gates": {"firstToken": {"max": "5%"}}},
        {"connections": [{"name": "a", "s3": {}}, {"name": "a", "s3": {}}]},
        {"jobs": {"stages": [{"name": "merge", "scheduling": {}}] * 2}},
    ],
    ids=str,
)
def test_what_is_the_objects_own_is_no_part_of_a_profile(wrong: Json) -> None:
    with pytest.raises(ValidationError):
        Profile.model_validate(wrong)


def test_the_digest_is_of_what_is_said_and_not_of_what_is_left_out() -> None:
    said = Profile.model_validate({"artifact": {"uri": "s3://a/b", "connection": ""}, "jobs": {}})
    assert said.digest == Profile.model_validate({"artifact": {"uri": "s3://a/b"}}).digest
    assert said.digest != Profile().digest
