"""The budget that comes with a Deployment: where it protects, gone with it, never a stranger's."""

from typing import Any

from builders import spec_document
from fake_cluster import FakeCluster
from lora_api.parameters import ServingRecipe
from lora_api.runtimes import Runtime
from lora_operator.actions import ApplyDeployment
from lora_operator.cluster import BUDGETS
from lora_operator.execute import Executor
from lora_operator.observed import ObservedObject
from lora_operator.settings import Settings

Json = dict[str, Any]
RECIPE = ServingRecipe(
    runtime=Runtime.TRANSFORMERS, image="serve", accelerator="None", model_name="demo"
)
ADDRESS = ("poddisruptionbudgets", "team", "demo-1")


async def applied(cluster: FakeCluster, replicas: int) -> None:
    parent = ObservedObject("team", "demo", "uid-demo", 1, "1", spec_document(), {}, {})
    action = ApplyDeployment("demo-1", "12345678", "d", "default", RECIPE.to_json(), replicas)
    await Executor(cluster, Settings(jobs_image="jobs", quantize_image="quantize"), parent).execute(
        action
    )


def budgets_written(cluster: FakeCluster) -> int:
    return sum(plural == BUDGETS.plural for _, plural, _ in cluster.writes)


async def test_a_lone_pod_has_none_for_none_would_protect_it() -> None:
    cluster = FakeCluster()
    await applied(cluster, replicas=1)
    assert ADDRESS not in cluster.objects


async def test_more_pods_have_one_that_selects_them_and_goes_with_their_deployment() -> None:
    cluster = FakeCluster()
    await applied(cluster, replicas=2)
    deployment, budget = cluster.objects["deployments", "team", "demo-1"], cluster.objects[ADDRESS]
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    (owner,) = budget["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Deployment", deployment["metadata"]["uid"])


async def test_it_is_written_once_and_again_when_somebody_changed_it() -> None:
    cluster = FakeCluster()
    for _ in range(3):
        await applied(cluster, replicas=3)
    assert budgets_written(cluster) == 1
    cluster.objects[ADDRESS]["spec"]["maxUnavailable"] = 0
    await applied(cluster, replicas=3)
    assert cluster.objects[ADDRESS]["spec"]["maxUnavailable"] == 1


async def test_somebody_elses_budget_of_that_name_is_left_alone() -> None:
    cluster = FakeCluster()
    cluster.add(BUDGETS, {"metadata": {"name": "demo-1", "namespace": "team"}, "spec": {}})
    await applied(cluster, replicas=2)
    assert budgets_written(cluster) == 0
    assert cluster.objects[ADDRESS]["spec"] == {}
