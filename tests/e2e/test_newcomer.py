"""A newcomer's first day: a small object against the platform team's profile, then what goes wrong.

Only what users see is read: `kubectl lora`, `kubectl get`, events. Each breakage is one of
docs/runbooks.md and is cured by what the plugin's text says, while the last good release answers.
After test_main_job.py the store has all results; alone, the first test makes them.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from demo_object import small_object
from lora import WORKING, Asker, Lora, until
from lora_cli.app import SERVING
from plugin import Plugin
from testbed import E2E_BUCKET, E2E_SECRET, PROFILE, PROFILE_STORE, Testbed
from tinyfiles import write_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]
NAME = "small"
OTHER_BASE = f"s3://{E2E_BUCKET}/other-base"
Json = dict[str, Any]


@dataclass(frozen=True)
class Newcomer:
    """A user with kubectl, the plugin, and the file of the object."""

    testbed: Testbed
    lora: Lora
    plugin: Plugin

    def types(self, line: str) -> str:
        """The output of a `kubectl lora ...` that is typed in the user's namespace."""
        kubectl = self.lora.kubectl
        verb, *words = shlex.split(line.removeprefix("kubectl lora "))
        where = ["--namespace", kubectl.namespace]
        where += ["--kubeconfig", str(kubectl.kubeconfig)] if kubectl.kubeconfig else []
        done = self.plugin(verb, *words, *([] if verb == "explain" else where))
        assert done["code"] == 0, f"{line}: {done['err']}"
        return str(done["out"])

    def applies(self, **changes: Any) -> None:
        """The file, with fields of its spec changed by dotted path."""
        document = small_object(NAME)
        for path, value in changes.items():
            *parents, last = path.split(".")
            place = document["spec"]
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        self.lora.kubectl.apply(document)

    def status(self) -> Json:
        """What `kubectl lora status` says."""
        told: Json = json.loads(self.types(f"kubectl lora status {NAME} -o json"))
        return told

    def is_told(self, reason: str) -> Json:
        """Wait until status gives the reason for what was applied last."""

        def tells() -> bool:
            told = self.status()
            return bool(told["isSeen"]) and told["reason"] == reason

        until(f"{reason} is told", tells, 180, self.status)
        return self.status()

    def events(self) -> set[str]:
        """Reasons of the object's events."""
        events = self.lora.kubectl.items("events")
        return {e["reason"] for e in events if e["involvedObject"]["name"] == NAME}

    def stages_that_ran(self) -> set[str]:
        """Jobs that did work; one that never got a node did none."""
        jobs = self.lora.jobs(*WORKING)
        return {j["metadata"]["name"] for j in jobs if j["status"].get("succeeded")}

    def is_served(self) -> None:
        self.lora.wait("Ready", "True", seconds=180)


@pytest.fixture(scope="module")
def user(
    testbed: Testbed, story_namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Newcomer]:
    folder = tmp_path_factory.mktemp("newcomer")
    testbed.upload(write_base(folder / "base"), E2E_BUCKET, OTHER_BASE.rpartition("/")[2])
    lora = Lora(testbed.kubectl.within(story_namespace), NAME)
    yield Newcomer(testbed, lora, Plugin.with_kubectl(folder, *lora.kubectl.command))
    lora.kubectl("delete", "lora", NAME, "--ignore-not-found", "--wait=false")


def test_a_small_object_takes_the_platform_teams_profile_and_the_plugin_follows_it(
    user: Newcomer,
) -> None:
    user.applies()
    user.lora.wait("Ready", "True", seconds=1500)
    told = user.status()
    assert (told["phase"], told["verdict"], told["nextSteps"]) == ("Serving", "Passed", [])
    assert user.lora.kubectl("get", "lora", NAME).splitlines()[1].split()[:2] == [NAME, "Serving"]
    measured = user.types(f"kubectl lora report {NAME}")
    assert "Perplexity/task" in measured
    assert PROFILE_STORE in measured
    [release] = json.loads(user.types(f"kubectl lora releases {NAME} -o json"))
    assert release["serves"]
    assert user.types(f"kubectl lora logs {NAME} {SERVING}").strip()
    assert user.lora.status["profile"]["name"] == PROFILE
    assert Asker(user.lora.url(), NAME).ask()


# --- what goes wrong, and what status says to do -------------------------------------------------


def _secret_is_deleted(user: Newcomer) -> None:
    user.lora.kubectl("delete", "secret", E2E_SECRET)
    user.applies(refresh="after-the-loss")


def _create_the_secret(user: Newcomer) -> None:
    user.testbed.prepare_namespace(user.lora.kubectl.namespace, E2E_SECRET)
    user.types(f"kubectl lora retry {NAME}")


def _another_base(user: Newcomer) -> None:
    user.applies(baseModel={"uri": OTHER_BASE})


def _foreign_image(user: Newcomer) -> None:
    user.applies(**{"serving.image": "registry.example/mine:1"})


def _misspelt_profile(user: Newcomer) -> None:
    user.applies(profile=f"{PROFILE}s")


def _accelerator_that_no_node_has(user: Newcomer) -> None:
    user.applies(**{"serving.accelerator": {"resource": "example.com/accelerator"}})


def _strict_gate(user: Newcomer) -> None:
    user.applies(**{"gates.weightsSize": {"minDecrease": "95%"}})


def _approve_the_gate(user: Newcomer) -> None:
    user.types(f"kubectl lora approve {NAME} weightsSize --reason 'small enough for us'")


def _correct_the_file(user: Newcomer) -> None:
    user.applies()


@dataclass(frozen=True)
class Breakage:
    """What a user does, what is said of it, and what cures it.

    Attributes:
        reason: Of status; the heading of its entry in the runbooks.
        message: What the message names.
        advice: What the runbook's entry says to do.
    """

    happens: Callable[[Newcomer], None]
    reason: str
    message: tuple[str, ...]
    advice: str
    cure: Callable[[Newcomer], None]


BREAKAGES = [
    Breakage(
        _secret_is_deleted, "CredentialsMissing",
        (E2E_SECRET, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        "Create the Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`",
        _create_the_secret,
    ),
    Breakage(
        _another_base, "AdapterMismatch", ("base",),
        "Name the base that the adapter was trained on", _correct_the_file,
    ),
    Breakage(
        _foreign_image, "NotAllowed", ("spec.serving.image", "registry.example/mine:1"),
        "Name one that is allowed", _correct_the_file,
    ),
    Breakage(
        _misspelt_profile, "ProfileNotFound", (f"{PROFILE}s", f"there are {PROFILE}"),
        "Name one of them", _correct_the_file,
    ),
    Breakage(
        _accelerator_that_no_node_has, "Unschedulable", ("Insufficient example.com/accelerator",),
        "On CPUs set `serving.accelerator.resource` to `None`", _correct_the_file,
    ),
    Breakage(
        _strict_gate, "GatesFailed", ("weightsSize", "95%"),
        "`kubectl lora approve NAME GATE --reason TEXT`", _approve_the_gate,
    ),
]  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES, ids=[b.reason for b in BREAKAGES])
def test_what_a_user_breaks_is_told_with_its_cure_while_the_last_good_release_serves(
    user: Newcomer, breakage: Breakage
) -> None:
    release, worked = user.lora.serving_release(), user.stages_that_ran()
    with Asker(user.lora.url(), NAME) as asker:
        breakage.happens(user)
        told = user.is_told(breakage.reason)
        explain = f"kubectl lora explain {breakage.reason}"
        assert any(step.endswith(explain) for step in told["nextSteps"]), told["nextSteps"]
        assert [word for word in breakage.message if word not in told["message"]] == []
        assert breakage.advice in " ".join(user.types(explain).split())
        assert breakage.reason in user.lora.kubectl("get", "lora", NAME, "-o", "wide").split()
        assert breakage.reason in user.events()
        assert user.lora.condition("Available")["status"] == "True"
        breakage.cure(user)
        user.is_served()
    assert (user.lora.serving_release(), user.stages_that_ran()) == (release, worked)
    assert asker.asked
    assert (asker.failures, len(asker.answers)) == ([], 1)
