"""How the operator logs: to stderr, as text for people or as one JSON object a line."""

import logging
import sys
from enum import StrEnum

from pythonjsonlogger.json import JsonFormatter

_RECORD = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JSON_NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


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
        return JsonFormatter(_RECORD, rename_fields=_JSON_NAMES)
    return logging.Formatter(_RECORD)
