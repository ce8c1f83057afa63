"""How strongly each layer's update counts, as PEFT computes it from adapter_config.json. Pure.

alpha / r, or alpha / sqrt(r) for rsLoRA, with `rank_pattern` and `alpha_pattern` by the first
pattern that matches in the order of the file. (PEFT sorts the keys when it saves, so that order may
not be the one of the training; the file's is the only one left, and ranks that do not fit the
weights are refused.)
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused

CONFIG = "adapter_config.json"
_MATCH_SECONDS = 1.0
"""Python's `re` cannot be stopped, and patterns such as (a+)+b run for years."""


@dataclass(frozen=True)
class Pattern:
    """A default and its exceptions by layer, as `rank_pattern` and `alpha_pattern` say them."""

    default: float
    exceptions: tuple[tuple[regex.Pattern[str], float], ...]

    def value_for(self, module: str) -> float:
        """As peft's `get_pattern_key`: the first pattern that matches the end of the name.

        Raises:
            Refused: A pattern takes so long that it may never end.
        """
        for pattern, value in self.exceptions:
            try:
                if pattern.match(module, timeout=_MATCH_SECONDS):
                    return value
            except TimeoutError:
                raise _invalid(
                    f"the pattern {pattern.pattern} takes too long on {module}; name the layers "
                    "more plainly"
                ) from None
        return self.default


@dataclass(frozen=True)
class Scaling:
    """Rank and scaling of every layer."""

    ranks: Pattern
    alphas: Pattern
    is_rslora: bool

    def rank(self, module: str) -> int:
        """The rank that the config says."""
        return int(self.ranks.value_for(module))

    def factor(self, module: str) -> float:
        """What B @ A is multiplied by."""
        rank = self.rank(module)
        return self.alphas.value_for(module) / (math.sqrt(rank) if self.is_rslora else rank)


def read_scaling(config: Mapping[str, Any]) -> Scaling:
    """Read ranks and alphas.

    Raises:
        Refused: A value is no positive number, a rank is not whole, a pattern is none.
    """
    ranks = _pattern(config, "r", "rank_pattern")
    values = (ranks.default, *(value for _, value in ranks.exceptions))
    if any(value != int(value) for value in values):
        raise _invalid("a rank is a whole number; upload the config that PEFT saved")
    alphas = _pattern(config, "lora_alpha", "alpha_pattern")
    return Scaling(ranks, alphas, bool(config.get("use_rslora")))


def _pattern(config: Mapping[str, Any], field: str, exceptions_field: str) -> Pattern:
    exceptions = config.get(exceptions_field) or {}
    if not isinstance(exceptions, dict):
        raise _invalid(f"{exceptions_field} is no object; upload what PEFT saved")
    for name, value in ((field, config.get(field)), *exceptions.items()):
        if not _is_positive(value):
            raise _invalid(f"{name} is {value}, not a positive number; correct it")
    try:
        compiled = [
            (regex.compile(rf"(.*\.)?({key})$"), value) for key, value in exceptions.items()
        ]
    except (regex.error, RecursionError, OverflowError) as error:
        raise _invalid(
            f"{exceptions_field} holds no regular expression: {error}; correct it"
        ) from None
    return Pattern(config[field], tuple(compiled))


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= sys.float_info.max


def _invalid(message: str) -> Refused:
    return Refused(Reason.INVALID_INPUT, f"{CONFIG}: {message}")
