"""`spec.evaluation.task.scorer`: whether a model's own answer to a record is right."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from lora_api.base import ApiModel


class ScorerType(StrEnum):
    """How an answer is compared with the record's completion, white space at the ends aside."""

    EXACT_MATCH = "ExactMatch"
    CONTAINS = "Contains"
    REGEX = "Regex"
    JSON_EQUAL = "JSONEqual"


class Scorer(ApiModel):
    """Models answer the task's prompts, greedily; perplexity alone hides damage to a task.

    ExactMatch: the answer is the completion. Contains: it holds it. Regex: the completion is a
    pattern that is found in it. JSONEqual: both are the same JSON value.
    """

    type: ScorerType
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Of an answer, which is cut there."""
