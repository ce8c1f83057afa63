"""The whole node: up, down, status, and the handles that tests need.

`up` starts everything in own namespaces (see nsinit.py) and waits until pods can run. It is safe to
call at any time: on a healthy cluster it returns at once, and after a crash it first removes what
was left. Each cluster starts with an empty etcd; images and S3 data survive.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from localcluster import archive, components, host, nodeconfig, paths, pki, s3, tools
from localcluster.console import ClusterError, say, tail, wait_until
from localcluster.host import Init
from localcluster.kubeapi import Json, KubeApi
from localcluster.shell import SYSTEM_PATH, run

SERVER = f"https://{paths.NODE_IP}:{paths.API_PORT}"
S3_ENDPOINT = f"http://{paths.NODE_IP}:{paths.S3_PORT}"
_NODE_PATH = f"/api/v1/nodes/{paths.NODE_NAME}"


def api() -> KubeApi:
    """The running cluster's API."""
    return KubeApi(SERVER, pki.ensure())


def running() -> Init | None:
    """The namespaces' first process, if the cluster runs (healthy or not)."""
    init = Init.load()
    if init is None or not init.alive():
        return None
    if init.cache != str(paths.cache()):
        raise ClusterError(
            f"a cluster of the cache {init.cache} is running on this machine, which has room for "
            f"one. Stop it: XDG_CACHE_HOME={Path(init.cache).parent} localcluster down"
        )
    return init


def healthy() -> bool:
    """Node Ready, DNS and S3 serving."""
    if running() is None:
        return False
    with contextlib.suppress(OSError, ClusterError):
        return not problems()
    return False


def problems() -> list[str]:
    """What is missing for pods to run; raises OSError when the API server does not answer."""
    kube = api()
    checks: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("the API server is not ready", kube.ready),
        ("the node is not Ready", lambda: _node_ready(kube)),
        ("cluster DNS is not published", lambda: _has(kube, "kube-system/services/kube-dns")),
        ("S3 does not answer", lambda: s3.healthy(paths.NODE_IP, paths.S3_PORT)),
        (
            "serviceaccount default is missing",
            lambda: _has(kube, "default/serviceaccounts/default"),
        ),
    )
    return [text for text, good in checks if not good()]


def up() -> Path:
    """Starts the cluster if it is not running and healthy; returns the kubeconfig's path."""
    host.require_node_host()
    with tools.lock("cluster"):
        if healthy():
            say(f"already up: {paths.NODE_NAME} at {SERVER}, S3 at {S3_ENDPOINT}")
            return paths.host_kubeconfig()
        host.ensure_packages(images=False)
        tools.build_all()
        stale = running()
        if stale is not None:
            say("a cluster is running but not healthy: starting it afresh")
            host.end(stale, grace=5)
        host.remove_leftovers()
        try:
            _start()
        except BaseException:
            say(f"failed; logs are kept in {_keep_logs()}")
            _end_running(grace=2)
            raise
    return paths.host_kubeconfig()


def down(*, wipe: bool = False) -> None:
    """Stops the cluster and removes its run folder; with `wipe` also images and S3 data."""
    host.require_node_host()
    with tools.lock("cluster"):
        was_running = running() is not None
        _end_running(grace=10)
        if wipe:
            for folder in (paths.store(), paths.s3()):
                shutil.rmtree(folder, ignore_errors=True)
        paths.host_kubeconfig().unlink(missing_ok=True)
        say("stopped" if was_running else "nothing was running")


def services() -> dict[str, Json]:
    """The services with their pids inside the namespace and how often each was restarted."""
    try:
        state: dict[str, Json] = json.loads(paths.supervisor_state().read_text())
    except (OSError, ValueError):
        return {}
    return state


def send_signal(service: str, how: signal.Signals = signal.SIGKILL) -> None:
    """Signals one service, e.g. to see what a crash does. A dead one is started again after 1 s."""
    init, known = running(), services()
    if init is None:
        raise ClusterError("the cluster is not running: `localcluster up` starts it")
    if service not in known:
        raise ClusterError(f"no service {service}; running now: {', '.join(sorted(known))}")
    kill = ("kill", f"-{int(how)}", str(known[service]["pid"]))
    run("nsenter", "-t", str(init.pid), "-m", "-p", *kill)


def set_gpus(count: int) -> None:
    """Says that the node has GPUs: an extended resource that scheduler and kubelet honour.

    It survives a kubelet that starts again; a new cluster begins without.
    """
    amounts = {"nvidia.com/gpu": str(count)}
    api().patch(f"{_NODE_PATH}/status", {"status": {"capacity": amounts, "allocatable": amounts}})

    def counted() -> bool:
        node = api().get(_NODE_PATH) or {}
        return bool(node["status"]["allocatable"].get("nvidia.com/gpu") == str(count))

    wait_until(f"nvidia.com/gpu: {count} on the node", counted, seconds=20)


def environment() -> dict[str, str]:
    """What a shell needs to use the cluster."""
    return {
        "KUBECONFIG": str(paths.host_kubeconfig()),
        "PATH": f"{paths.bin_links()}:{os.environ.get('PATH', SYSTEM_PATH)}",
        "AWS_ENDPOINT_URL": S3_ENDPOINT,
        "AWS_ACCESS_KEY_ID": s3.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY,
        "AWS_REGION": s3.REGION,
        "AWS_DEFAULT_REGION": s3.REGION,
    }


def _start() -> None:
    certificates = pki.ensure()
    for folder in (paths.logs(), paths.conf(), paths.store(), paths.s3() / "data",
                   paths.s3() / "iam", paths.run() / "volume-plugins"):  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
    nodeconfig.write(certificates)
    host.make_cgroups()
    plan = _write_plan(certificates)
    say("starting etcd, kube-apiserver, containerd and S3 in their own namespaces")
    child = _unshare(plan)
    init = _find_init(child)
    init.save()
    host.connect(init)
    assert child.stdin is not None
    child.stdin.write(b"connected\n")
    child.stdin.close()
    _wait(child, certificates)


def _write_plan(certificates: Path) -> Path:
    pause = tools.PAUSE.folder() / "pause"
    image = paths.run() / "pause.tar"
    archive.single_file(image, nodeconfig.PAUSE_IMAGE, pause)
    plan = {"pki": str(certificates), "archives": [str(image)], "services": _services(certificates)}
    path = paths.conf() / "plan.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(plan, indent=1))
    return path


def _services(certificates: Path) -> dict[str, Json]:
    """Every service's command line; nsinit.py knows the order."""
    hyperkube = str(tools.HYPERKUBE.folder() / "hyperkube")
    conf, run_folder = paths.conf(), paths.run()
    kubelet = [
        "kubelet", f"--config={conf}/kubelet.yaml", f"--node-ip={paths.NODE_IP}",
        f"--kubeconfig={nodeconfig.kubeconfig('kubelet')}", f"--root-dir={run_folder}/kubelet",
        f"--hostname-override={paths.NODE_NAME}", f"--cert-dir={run_folder}/kubelet/pki",
    ]  # fmt: skip
    manager = nodeconfig.kubeconfig("kube-controller-manager")
    commands = (
        components.etcd(run_folder / "etcd", 2379, 2380),
        components.apiserver(
            certificates, 2379, paths.API_PORT, bind="0.0.0.0", advertise=paths.NODE_IP
        ),
        components.controller_manager(certificates, manager, 10257),
        components.scheduler(nodeconfig.kubeconfig("kube-scheduler"), 10259),
        kubelet,
        ["kube-proxy", f"--config={conf}/kube-proxy.yaml"],
    )
    services: dict[str, Json] = {c[0]: {"argv": [hyperkube, *c]} for c in commands}
    containerd = str(tools.NODE.folder() / "containerd")
    services["containerd"] = {"argv": [containerd, "--config", f"{conf}/containerd.toml"]}
    coredns = str(tools.COREDNS.folder() / "coredns")
    services["coredns"] = {"argv": [coredns, "-conf", f"{conf}/Corefile"]}
    s3_command = components.versitygw(
        paths.s3() / "data", paths.s3() / "iam", f"{paths.NODE_IP}:{paths.S3_PORT}"
    )
    program = str(tools.S3.folder() / "versitygw")
    services["versitygw"] = {"argv": [program, *s3_command], "env": s3.root_account()}
    return services


def _unshare(plan: Path) -> subprocess.Popen[bytes]:
    node_tools = tools.NODE.folder()
    environment = {
        **os.environ,
        "PATH": f"{node_tools}:{SYSTEM_PATH}",
        "PYTHONPATH": str(paths.HERE.parent),
        "CTR": str(node_tools / "ctr"),
        "XDG_CACHE_HOME": str(paths.cache().parent),
    }
    with (paths.logs() / "init.log").open("ab") as log:
        return subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
             "--propagation", "private", sys.executable, "-m", "localcluster.nsinit", str(plan)],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment,
            cwd="/", start_new_session=True,
        )  # fmt: skip


def _find_init(child: subprocess.Popen[bytes]) -> Init:
    """The host's view of the process that is PID 1 inside."""
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    found: list[int] = []

    def forked() -> bool:
        found[:] = [int(pid) for pid in children.read_text().split()]
        return bool(found)

    wait_until("the namespaces", forked, seconds=10, interval=0.01, alive=lambda: _alive(child))
    return Init(found[0], host.start_time(found[0]), str(paths.cache()))


def _alive(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        raise ClusterError(
            f"the cluster's first process ended ({child.returncode}):\n"
            f"{tail(paths.logs() / 'init.log')}"
        )


def _wait(child: subprocess.Popen[bytes], certificates: Path) -> None:
    def await_(what: str, ready: Callable[[], bool], log: str) -> None:
        hint = f"See {paths.logs()}/{log}.log"
        wait_until(what, ready, seconds=120, alive=lambda: _alive(child), hint=hint)
        say(f"{what} ready")

    kube = api()
    await_("API server", kube.ready, "kube-apiserver")
    pki.kubeconfig(certificates, "admin", SERVER, paths.host_kubeconfig())
    await_("S3 server", lambda: s3.healthy(paths.NODE_IP, paths.S3_PORT), "versitygw")
    system = "/api/v1/namespaces/kube-system"
    wait_until("namespace kube-system", lambda: kube.get(system) is not None, seconds=30)
    _publish_dns(kube)
    await_("node", lambda: _node_ready(kube), "kubelet")
    await_("serviceaccount default", lambda: _has(kube, "default/serviceaccounts/default"),
           "kube-controller-manager")  # fmt: skip


def _publish_dns(kube: KubeApi) -> None:
    """A Service without selector: CoreDNS is a process of the node, not a pod."""
    base = "namespaces/kube-system"
    ports = [
        {"name": name, "port": 53, "targetPort": paths.DNS_PORT, "protocol": protocol}
        for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    kube.apply(
        f"/api/v1/{base}/services/kube-dns",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns"},
            "spec": {"clusterIP": paths.DNS_IP, "ports": ports},
        },
    )
    kube.apply(
        f"/apis/discovery.k8s.io/v1/{base}/endpointslices/kube-dns-local",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-local",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [paths.NODE_IP], "conditions": {"ready": True}}],
            "ports": [
                {"name": p["name"], "port": paths.DNS_PORT, "protocol": p["protocol"]}
                for p in ports
            ],
        },
    )


def _node_ready(kube: KubeApi) -> bool:
    node = kube.get(_NODE_PATH)
    if node is None:
        return False
    conditions = node["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _has(kube: KubeApi, name: str) -> bool:
    """`name` is NAMESPACE/RESOURCE/NAME of the core group."""
    return kube.get(f"/api/v1/namespaces/{name}") is not None


def _end_running(grace: float) -> None:
    init = running()
    if init is not None:
        host.end(init, grace)
    host.remove_leftovers()


def _keep_logs() -> Path:
    """The run folder goes away; the logs of a failed start must not."""
    kept = paths.cluster() / "failed-logs"
    shutil.rmtree(kept, ignore_errors=True)
    if paths.logs().exists():
        shutil.copytree(paths.logs(), kept)
    return kept
