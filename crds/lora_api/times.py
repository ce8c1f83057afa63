"""Times and durations as the API writes them. Pure: the clock is read at the edge."""

import re
from datetime import UTC, datetime

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def rfc3339(epoch_seconds: float) -> str:
    """A moment in UTC, to the second: `2026-11-22T10:00:00Z`."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_seconds(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None when it is empty or no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def seconds_of(duration: str) -> int:
    """Seconds of a duration such as `1h30m`.

    Raises:
        ValueError: It is no duration.
    """
    match = _DURATION.fullmatch(duration)
    if not match or not duration:
        raise ValueError(f"{duration!r} is no duration; write e.g. 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
