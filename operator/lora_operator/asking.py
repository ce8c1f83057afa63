"""What an object asks for: its spec, with the profile that it names filled in. Pure.

The one place where the operator reads a spec: what is planned, what is checked against the
administrator's lists and what is written into Jobs and Deployments is the same.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lora_api.conditions import ConditionReason
from lora_api.profile import Profile, apply_profile
from lora_api.spec import ObjectSpec, Spec, parse_spec
from lora_operator.failures import Cure, Trouble


def spec_of(raw: Mapping[str, Any], profiles: Mapping[str, Profile]) -> Spec | Trouble:
    """The whole spec, or why there is none.

    Args:
        raw: `spec` as the API server returned it.
        profiles: The platform team's, by name.
    """
    try:
        asked = ObjectSpec.model_validate(dict(raw))
        if asked.profile:
            if asked.profile not in profiles:
                return _unknown(asked.profile, profiles)
            asked = apply_profile(asked, profiles[asked.profile])
        if asked.artifact is None:
            return _without_artifact(asked.profile)
        return parse_spec(asked.to_json())
    except ValidationError as error:
        return _unreadable(error)


def _unknown(name: str, profiles: Mapping[str, Profile]) -> Trouble:
    there_are = f"there are {', '.join(sorted(profiles))}" if profiles else "there are none"
    return Trouble(
        ConditionReason.PROFILE_NOT_FOUND,
        f"spec.profile names {name}, which is no profile of this operator ({there_are}); name "
        "another, remove it, or have it added to the chart's profiles",
        Cure.CHANGE,
    )


def _without_artifact(profile: str) -> Trouble:
    giver = f"profile {profile} gives none" if profile else "no profile is named"
    return Trouble(
        ConditionReason.ARTIFACT_MISSING,
        f"spec.artifact is not set and {giver}; set spec.artifact.uri to the bucket for artifacts, "
        "or name a profile that has one in spec.profile",
        Cure.CHANGE,
    )


def _unreadable(error: ValidationError) -> Trouble:
    what = "; ".join(
        f"spec.{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]
    )
    return Trouble(ConditionReason.INVALID_SPEC, f"{what}; correct the spec", Cure.CHANGE)
