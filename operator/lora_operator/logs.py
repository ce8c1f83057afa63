"""How the operator logs: to stderr, as text for people or as one JSON object a line.

A JSON line of a look carries the ids of what it is about: `object`, `uid`, `run` and, where traces
are sent, `trace_id`.
"""

import logging
import sys
from contextvars import ContextVar
from enum import StrEnum

from pythonjsonlogger.json import JsonFormatter

_RECORD = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JSON_NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}
_IDS: ContextVar[dict[str, str] | None] = ContextVar("ids", default=None)


class LogFormat(StrEnum):
    """What a line looks like."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is told."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def log_to_stderr(level: LogLevel, form: LogFormat, verbose: bool) -> None:
    """Set the root logger up; `verbose` shows every request of the watches too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=level.value, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    quiet = max(logging.WARNING, logging.getLogger().level)
    logging.getLogger("kopf").setLevel(logging.DEBUG if verbose else quiet)


def formatter(form: LogFormat) -> logging.Formatter:
    """Lines of the given form; an exception stays within its JSON line."""
    if form is LogFormat.JSON:
        return _WithIds(_RECORD, rename_fields=_JSON_NAMES)
    return logging.Formatter(_RECORD)


def log_about(**ids: str) -> None:
    """Whom this task's lines are about, until it says otherwise; an empty id is left out.

    Not undone by who says it: the queue's line on a look that failed is about the same object.
    """
    _IDS.set({name: value for name, value in ids.items() if value})


class _WithIds(JsonFormatter):
    def add_fields(
        self,
        log_data: dict[str, object],
        record: logging.LogRecord,
        message_dict: dict[str, object],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.update(_IDS.get() or {})
