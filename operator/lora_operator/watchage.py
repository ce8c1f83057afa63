"""Whether the watch still tells: what lists show must have come through it by the next list.

A watch whose stream is open but silent, or whose task has died, looks like a quiet cluster. Our
resync lists every object anyway, so a version that was listed once, is still there a whole resync
later, and was never told, proves that the watch is deaf. A restart cures that, which is what a
failing liveness probe asks for.

Resource versions are compared for equality only.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from lora_operator.health import Unhealthy

Key = TypeVar("Key", bound=Hashable)


class DeafWatch(Unhealthy):
    """The watch has not told of what two lists in a row have shown."""


class WatchAge(Generic[Key]):
    """What the watch has told, against what lists show; pure, without a clock."""

    def __init__(self) -> None:
        self._told: dict[Key, str] = {}
        self._owed: dict[Key, str] = {}
        self._deaf_to: Key | None = None

    def tell(self, key: Key, version: str) -> None:
        """The watch has told of this version of an object."""
        self._told[key] = version
        if key == self._deaf_to:
            self._deaf_to = None

    def compare(self, listed: Mapping[Key, str]) -> None:
        """A list has come in: what it shows is owed by the watch until the next one."""
        missing = {k: v for k, v in listed.items() if self._told.get(k) != v}
        overdue = (key for key, version in missing.items() if self._owed.get(key) == version)
        self._deaf_to = next(overdue, None)
        self._owed = missing
        self._told = {k: v for k, v in self._told.items() if k in listed}

    def check(self) -> None:
        """Nothing, while the watch tells.

        Raises:
            DeafWatch: It does not.
        """
        if self._deaf_to is not None:
            raise DeafWatch(f"the watch has not told of {self._deaf_to} for a whole resync")
