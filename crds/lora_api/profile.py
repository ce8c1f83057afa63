"""Profiles: named defaults of a platform team, and how an object takes one over. Pure.

A profile fills only what the object leaves unset and the schema does not default, and the object's
own word always wins. Its gates are floors: of each gate the stricter of the two counts, and what
an object accepts in `overrides` is accepted all the same. The keys that it trusts are a floor too:
an object may trust fewer of them, and none besides.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, StringConstraints, TypeAdapter, model_validator

from lora_api.base import ApiModel, ObjectName, Percent, ShortName, Token
from lora_api.connections import Connection
from lora_api.digests import digest_of
from lora_api.gatespec import GateMode, Gates
from lora_api.podspec import JobCache, Scheduling
from lora_api.provenance import Provenance, trusted_by_both
from lora_api.runtimes import Runtime
from lora_api.spec import ArtifactPlace, Jobs, JobStage, ObjectSpec, Serving, StageJob

_BY_STRENGTH = (GateMode.DISABLED, GateMode.DRY_RUN, GateMode.ENFORCE)


class Floor(ApiModel):
    """The least that a gate asks for; without a limit the object's own is taken."""

    mode: GateMode = GateMode.ENFORCE


class IncreaseFloor(Floor):
    """Of a gate that limits a rise."""

    max_increase: Percent | None = None


class DecreaseFloor(Floor):
    """Of a gate that limits a fall."""

    max_decrease: Percent | None = None


class MinDecreaseFloor(Floor):
    """Of a gate that asks for a fall."""

    min_decrease: Percent | None = None


class MaxFloor(Floor):
    """Of a gate that allows a value."""

    max: Percent | None = None


class MinFloor(Floor):
    """Of a gate that asks for a value."""

    min: Percent | None = None


class GateFloors(ApiModel):
    """The gates of `spec.gates` that a profile does not leave to its objects alone."""

    task_quality: IncreaseFloor | None = None
    gain_retained: MinFloor | None = None
    general_quality: IncreaseFloor | None = None
    pass_rate: DecreaseFloor | None = None
    fallbacks: MaxFloor | None = None
    damping_raised: MaxFloor | None = None
    weights_size: MinDecreaseFloor | None = None
    decode_speed: DecreaseFloor | None = None
    first_token: IncreaseFloor | None = None


class ProfileAccelerator(ApiModel):
    """The part of `serving.accelerator` that has no default."""

    product: Annotated[str, StringConstraints(max_length=63)] = ""


class ProfileServing(ApiModel):
    """What fills `spec.serving`."""

    images: dict[Runtime, Annotated[str, StringConstraints(max_length=512)]] | None = None
    """`serving.image` by the object's runtime."""
    accelerator: ProfileAccelerator = ProfileAccelerator()
    service_account_name: ObjectName = ""
    scheduling: Scheduling | None = None


class ProfileJobDefaults(ApiModel):
    """What fills `spec.jobs.defaults`."""

    scheduling: Scheduling | None = None
    service_account_name: ObjectName = ""
    labels: Annotated[dict[str, Token] | None, Field(max_length=16)] = None
    """Of every stage Job and its pods; a queue of Kueue's is one."""
    annotations: Annotated[dict[str, Token] | None, Field(max_length=16)] = None
    cache: JobCache | None = None


class ProfileStage(ApiModel):
    """What fills an item of `spec.jobs.stages`."""

    name: JobStage
    scheduling: Scheduling


class ProfileJobs(ApiModel):
    """What fills `spec.jobs`."""

    defaults: ProfileJobDefaults = ProfileJobDefaults()
    stages: Annotated[list[ProfileStage] | None, Field(max_length=8)] = None
    """What the object says for all its stages goes before what stands here for one."""


class Profile(ApiModel):
    """Named defaults, as the chart's `profiles` has them; the fields are those of `spec`."""

    artifact: ArtifactPlace | None = None
    """Taken as a whole, by an object that has none."""
    connections: Annotated[list[Connection] | None, Field(max_length=16)] = None
    """Each is taken as a whole, unless the object has one of that name."""
    gates: GateFloors = GateFloors()
    provenance: Provenance | None = None
    """`signing` fills what the object leaves unset; with `publicKeys` no object serves without a
    signature of one of these keys."""
    serving: ProfileServing = ProfileServing()
    jobs: ProfileJobs = ProfileJobs()

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for what, names in (
            ("connections", [c.name for c in self.connections or ()]),
            ("jobs.stages", [s.name.value for s in self.jobs.stages or ()]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what} names {min(twice)} twice")
        return self

    @property
    def digest(self) -> str:
        """Identity of what it says; what says nothing beyond a default is left out."""
        return digest_of(
            self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
        )


PROFILES = TypeAdapter(dict[ShortName, Profile])
"""Profiles by name, as the chart hands them to the operator."""


def apply_profile(asked: ObjectSpec, profile: Profile) -> ObjectSpec:
    """What an object asks for together with its profile; applied twice it changes nothing more."""
    return asked.model_copy(
        update={
            "artifact": asked.artifact or profile.artifact,
            "connections": _connections(asked.connections, profile.connections),
            "gates": _gates(asked.gates, profile.gates),
            "provenance": _provenance(asked.provenance, profile.provenance),
            "serving": _serving(asked.serving, profile.serving),
            "jobs": _jobs(asked.jobs, profile.jobs),
        }
    )


def _connections(
    own: list[Connection] | None, given: list[Connection] | None
) -> list[Connection] | None:
    """Never a mixture: credentials of the one must not go to an endpoint of the other."""
    if not given:
        return own
    names = {c.name for c in own or ()}
    return [*(own or ()), *(c for c in given if c.name not in names)]


def _gates(own: Gates, floors: GateFloors) -> Gates:
    raised: dict[str, ApiModel] = {}
    for name in type(floors).model_fields:
        floor: Floor | None = getattr(floors, name)
        if floor is not None:
            raised[name] = _raised(getattr(own, name), floor)
    return own.model_copy(update=raised)


def _raised(gate: ApiModel, floor: Floor) -> ApiModel:
    """The gate, where the floor is stricter as the floor has it."""
    stricter: dict[str, Any] = {}
    for name in type(floor).model_fields:
        own, given = getattr(gate, name), getattr(floor, name)
        if given is not None and _strictness(name, given) > _strictness(name, own):
            stricter[name] = given
    return gate.model_copy(update=stricter)


def _strictness(field: str, value: str) -> Decimal:
    """More is stricter: a lower upper limit, a higher lower one, a mode that decides."""
    if field == "mode":
        return Decimal(_BY_STRENGTH.index(GateMode(value)))
    limit = Decimal(value.removesuffix("%"))
    return -limit if field.startswith("max") else limit


def _provenance(own: Provenance | None, given: Provenance | None) -> Provenance | None:
    """The keys that both trust; none are left where they agree on none, which no spec may have."""
    if own is None or given is None:
        return own or given
    keys = own.public_keys or given.public_keys
    if own.public_keys and given.public_keys:
        keys = trusted_by_both(own.public_keys, given.public_keys)
    return own.model_copy(update={"signing": own.signing or given.signing, "public_keys": keys})


def _serving(own: Serving, given: ProfileServing) -> Serving:
    product = own.accelerator.product or given.accelerator.product
    return own.model_copy(
        update={
            "image": own.image or (given.images or {}).get(own.runtime, ""),
            "accelerator": own.accelerator.model_copy(update={"product": product}),
            "service_account_name": own.service_account_name or given.service_account_name,
            "scheduling": _layered(given.scheduling, own.scheduling),
        }
    )


def _jobs(own: Jobs, given: ProfileJobs) -> Jobs:
    ours, theirs = own.defaults, given.defaults
    defaults = ours.model_copy(
        update={
            "scheduling": _layered(theirs.scheduling, ours.scheduling),
            "service_account_name": ours.service_account_name or theirs.service_account_name,
            "labels": _merged(theirs.labels, ours.labels),
            "annotations": _merged(theirs.annotations, ours.annotations),
            "cache": ours.cache or theirs.cache,
        }
    )
    return own.model_copy(update={"defaults": defaults, "stages": _stages(own, given)})


def _stages(own: Jobs, given: ProfileJobs) -> list[StageJob] | None:
    """A stage's scheduling goes before that of all stages: the object's is laid over the given."""
    if not given.stages:
        return own.stages
    stages = {s.name: s for s in own.stages or ()}
    for stage in given.stages:
        mine = stages.get(stage.name) or StageJob(name=stage.name)
        layers = (
            given.defaults.scheduling,
            stage.scheduling,
            own.defaults.scheduling,
            mine.scheduling,
        )
        stages[stage.name] = mine.model_copy(update={"scheduling": _layered(*layers)})
    return list(stages.values())


def _layered(*layers: Scheduling | None) -> Scheduling:
    """Later ones go before earlier ones."""
    result = Scheduling()
    for layer in _present(layers):
        result = result.overlaid_with(layer)
    return result


def _merged(
    under: Mapping[str, str] | None, over: Mapping[str, str] | None
) -> dict[str, str] | None:
    return {**under, **(over or {})} if under else (dict(over) if over is not None else None)


_T = TypeVar("_T")


def _present(items: Iterable[_T | None]) -> Iterable[_T]:
    return (item for item in items if item is not None)
