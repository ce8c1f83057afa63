"""What a line of the operator's log looks like."""

import json
import logging
import sys

import pytest

from lora_operator.logs import LogFormat, formatter
from lora_operator.settings import Settings

IMAGES = {"LORA_OPERATOR_JOBS_IMAGE": "jobs", "LORA_OPERATOR_QUANTIZE_IMAGE": "quantize"}


def record() -> logging.LogRecord:
    try:
        raise RuntimeError("no\nroom")
    except RuntimeError:
        return logging.LogRecord(
            "lora_operator.execute", logging.INFO, "file", 1, "%s/%s: created Job %s",
            ("team", "demo", "merge"), sys.exc_info(),
        )  # fmt: skip


def test_a_json_line_is_one_object_even_with_an_exception() -> None:
    line = formatter(LogFormat.JSON).format(record())
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("time")
    assert "RuntimeError: no" in told.pop("exc_info")
    assert told == {
        "level": "INFO",
        "logger": "lora_operator.execute",
        "message": "team/demo: created Job merge",
    }


def test_text_says_the_same_for_people() -> None:
    line = formatter(LogFormat.TEXT).format(record())
    assert "INFO lora_operator.execute: team/demo: created Job merge\n" in line


@pytest.mark.parametrize(("name", "word"), [("LOG_LEVEL", "LOUD"), ("LOG_FORMAT", "xml")])
def test_an_unknown_word_is_refused_at_start(name: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Settings.from_environment(IMAGES | {f"LORA_OPERATOR_{name}": word})
