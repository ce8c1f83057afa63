"""The local cluster can run what the operator makes: proof of the ground the e2e tests stand on.

Run it alone with `pytest tests/e2e/test_cluster_smoke.py`. It starts the cluster if it is down and
leaves it up; with CLUSTER=current it has nothing to prove and skips.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import Config

from kubectl import Kubectl
from localcluster import buildah, host, images, node, paths, s3, shell
from localcluster.console import ClusterError

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
SAMPLE = Path(__file__).parents[1] / "cluster" / "testdata" / "sample" / "Dockerfile"
RESTRICTED: Json = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
LOCKED_DOWN: Json = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture(scope="session")
def image() -> str:
    """The sample image, in a cluster that is up."""
    if os.environ.get("CLUSTER") == "current":
        pytest.skip("CLUSTER=current: this proves the local cluster only")
    try:
        host.require_node_host()
    except ClusterError as error:
        pytest.skip(str(error))
    node.up()
    return images.build("sample", dockerfile=SAMPLE)


@pytest.fixture(scope="session")
def kubectl(image: str) -> Iterator[Kubectl]:
    """kubectl in a namespace of its own that admits restricted pods only."""
    name = f"smoke-{os.getpid()}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster = Kubectl((str(paths.bin_links() / "kubectl"),), paths.host_kubeconfig())
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    yield cluster.within(name)
    cluster("delete", "namespace", name, "--wait=false")


def until(what: str, check: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def container(name: str, image: str, script: str, **more: Any) -> Json:
    return {
        "name": name,
        "image": image,
        "command": ["sh", "-c", script],
        "securityContext": LOCKED_DOWN,
        **more,
    }


def pod(name: str, spec: Json, labels: dict[str, str] | None = None) -> Json:
    common = {
        "restartPolicy": "Never",
        "securityContext": RESTRICTED,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {**common, **spec},
    }


def test_a_killed_build_does_not_stop_the_next(image: str, tmp_path: Path) -> None:
    """It leaves the container of its last step, and so an unnamed image that is in use."""
    stage = tmp_path / "Dockerfile"
    stage.write_text(f"FROM {image}\nLABEL killed=yes\n")
    policy = str(buildah.policy())
    words = ["bud", "-q", "--pull-never", "--signature-policy", policy, "--file", str(stage)]
    unnamed = shell.run(*buildah.argv(*words, str(tmp_path)))
    shell.run(*buildah.argv("from", "--pull-never", unnamed.strip()))
    with pytest.raises(ClusterError, match="in use by a container"):
        buildah.prune()
    assert images.build("sample", dockerfile=SAMPLE) == image
    buildah.prune()


def phase(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.get("pod", name)["status"].get("phase"))


@pytest.fixture(scope="session")
def web(image: str, kubectl: Kubectl) -> str:
    """A Service with one ready pod behind it; its cluster address."""
    serve = "python3 -m http.server 8080 --directory /opt/app"
    ready = {"httpGet": {"path": "/hello.py", "port": 8080}, "periodSeconds": 1}
    one = container("c", image, serve, readinessProbe=ready)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl.apply(pod("web", {"containers": [one]}, {"app": "web"}), service)
    kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    return str(kubectl.get("service", "web")["spec"]["clusterIP"])


def test_second_up_is_quick(image: str) -> None:
    began = time.monotonic()
    node.up()
    assert time.monotonic() - began < 2


def test_restricted_pod_with_init_container_reports_a_termination_message(
    image: str, kubectl: Kubectl
) -> None:
    mounts = [{"name": "work", "mountPath": "/data"}]
    checks = 'test "$(id -u)" = 65532 && ! touch /forbidden 2>/dev/null'
    report = f"{checks} && cat /data/greeting && printf done > /dev/termination-log"
    spec = {
        "initContainers": [container("i", image, "echo hi > /data/greeting", volumeMounts=mounts)],
        "containers": [container("c", image, report, volumeMounts=mounts)],
        "volumes": [{"name": "work", "emptyDir": {}}],
    }
    kubectl.apply(pod("init", spec))
    until("pod init ends", lambda: phase(kubectl, "init") in ("Succeeded", "Failed"))
    state = kubectl.get("pod", "init")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["message"]) == (0, "done")
    assert kubectl("logs", "init").strip() == "hi"


def test_image_runs_its_environment_without_compiling(image: str, kubectl: Kubectl) -> None:
    """Linked layers keep the times of files, so compiled modules stay valid on a read-only root."""
    script = "python3 -v -c 'import idna' 2>&1 | grep -c 'matches .*idna/__init__.py'"
    kubectl.apply(pod("venv", {"containers": [container("c", image, script)]}))
    until("pod venv ends", lambda: phase(kubectl, "venv") == "Succeeded")
    assert kubectl("logs", "venv").strip() == "1"


def test_job_with_exit_code_2_is_not_retried(image: str, kubectl: Kubectl) -> None:
    rule = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "c", "operator": "In", "values": [2]},
    }
    template = pod("unused", {"containers": [container("c", image, "exit 2")]})["spec"]
    kubectl.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "refused"},
            "spec": {
                "backoffLimit": 5,
                "podFailurePolicy": {"rules": [rule]},
                "template": {"spec": template},
            },
        }
    )
    kubectl("wait", "--for=condition=Failed", "job/refused", "--timeout=60s")
    job = kubectl.get("job", "refused")["status"]
    failed = next(c for c in job["conditions"] if c["type"] == "Failed")
    assert (failed["reason"], job["failed"]) == ("PodFailurePolicy", 1)


def test_gpu_job_waits_for_a_gpu(image: str, kubectl: Kubectl) -> None:
    """A Job, for the kubelet may hear of the GPUs after the scheduler, and then refuses the pod."""
    wanted = {"limits": {"nvidia.com/gpu": "2"}}
    template = pod("", {"containers": [container("c", image, "true", resources=wanted)]})["spec"]
    node.set_gpus(0)
    kubectl.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "gpu"},
            "spec": {"backoffLimit": 5, "template": {"spec": template}},
        }
    )

    def unschedulable() -> bool:
        pods = kubectl.items("pods", "batch.kubernetes.io/job-name=gpu")
        conditions = [c for one in pods for c in one["status"].get("conditions", [])]
        return any(c.get("reason") == "Unschedulable" for c in conditions)

    until("a pod of job gpu is unschedulable", unschedulable)
    node.set_gpus(2)
    kubectl("wait", "--for=condition=Complete", "job/gpu", "--timeout=60s")


def test_cluster_address_answers_from_the_host(web: str) -> None:
    with urllib.request.urlopen(f"http://{web}/hello.py", timeout=5) as answer:
        assert answer.status == 200


def test_pod_finds_service_by_name_and_reaches_s3(image: str, kubectl: Kubectl, web: str) -> None:
    fetch = "import urllib.request as u, sys; print(u.urlopen(sys.argv[1], timeout=5).status)"
    names = f"http://web.{kubectl.namespace}.svc.cluster.local/hello.py {node.S3_ENDPOINT}/healthz"
    script = f"for url in {names}; do python3 -c '{fetch}' $url || exit 1; done"
    kubectl.apply(pod("dns", {"containers": [container("c", image, script)]}))
    until("pod dns ends", lambda: phase(kubectl, "dns") in ("Succeeded", "Failed"))
    assert kubectl("logs", "dns").split() == ["200", "200"]


def test_s3_stores_an_object_once(image: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=node.S3_ENDPOINT,
        aws_access_key_id=s3.ACCESS_KEY,
        aws_secret_access_key=s3.SECRET_KEY,
        region_name=s3.REGION,
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket = f"smoke-{os.getpid()}"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a/b", Body=b"once", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a/b", Body=b"twice", IfNoneMatch="*")
    assert client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"once"
    client.delete_object(Bucket=bucket, Key="a/b")
    client.delete_bucket(Bucket=bucket)


def test_a_killed_service_comes_back(image: str) -> None:
    before = node.services()["kube-scheduler"]["restarts"]
    node.send_signal("kube-scheduler")
    until(
        "scheduler restarted",
        lambda: node.services().get("kube-scheduler", {}).get("restarts", 0) > before,
    )
