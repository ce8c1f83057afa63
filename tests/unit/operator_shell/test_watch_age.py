"""A silent watch is found out by what lists show, and a quiet cluster is no silent watch."""

import pytest

from lora_operator.watchage import DeafWatch, WatchAge


def test_a_quiet_cluster_is_healthy_for_ever() -> None:
    age = WatchAge[str]()
    age.tell("team/a", "1")
    for _ in range(5):
        age.compare({"team/a": "1"})
        age.check()


def test_a_version_that_two_lists_show_and_the_watch_never_told_is_unhealthy() -> None:
    age = WatchAge[str]()
    age.tell("team/a", "1")
    age.compare({"team/a": "2"})
    age.check()  # the event may still be on its way
    age.compare({"team/a": "2"})
    with pytest.raises(DeafWatch, match="team/a"):
        age.check()


def test_an_object_that_the_watch_never_told_of_at_all_counts_too() -> None:
    age = WatchAge[str]()
    for _ in range(2):
        age.compare({"team/new": "7"})
    with pytest.raises(DeafWatch):
        age.check()


def test_an_event_that_came_between_the_lists_clears_it() -> None:
    age = WatchAge[str]()
    age.compare({"team/a": "2"})
    age.tell("team/a", "2")
    age.compare({"team/a": "2"})
    age.check()


def test_an_object_that_changes_all_the_time_proves_nothing() -> None:
    age = WatchAge[str]()
    for version in "2345":
        age.compare({"team/a": version})
        age.check()


def test_a_watch_that_tells_again_is_healthy_again() -> None:
    age = WatchAge[str]()
    for _ in range(2):
        age.compare({"team/a": "2"})
    age.tell("team/a", "2")
    age.check()


def test_deleted_objects_are_forgotten() -> None:
    age = WatchAge[str]()
    age.compare({"team/a": "2"})
    age.compare({})
    age.check()
    age.compare({"team/a": "2"})
    age.check()
