"""Command lines of etcd and the control plane, shared by both tiers.

Traps:
- The controller-manager must start after /readyz: earlier it exits, its RBAC role being missing.
- `--unsafe-no-fsync` is right for a cluster whose data is thrown away, and only there.
"""

from __future__ import annotations

from pathlib import Path

from localcluster import paths


def etcd(data: Path, client_port: int, peer_port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        "etcd", "--name=local", f"--data-dir={data}", "--unsafe-no-fsync", "--log-level=warn",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}", "--auto-compaction-retention=1h",
    ]  # fmt: skip


def apiserver(pki: Path, etcd_port: int, port: int, *, bind: str, advertise: str) -> list[str]:
    """Upstream's defaults (so CEL and ValidatingAdmissionPolicy are on) plus Node and RBAC."""
    argv = [
        "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--bind-address={bind}", f"--advertise-address={advertise}", f"--secure-port={port}",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--service-cluster-ip-range={paths.SERVICE_CIDR}", "--profiling=false",
    ]  # fmt: skip
    if advertise.startswith("127."):
        # A loopback address may not stand in an EndpointSlice, and nothing here needs that one.
        return [*argv, "--endpoint-reconciler-type=none"]
    return [
        *argv,
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]


def controller_manager(pki: Path, kubeconfig: Path, port: int) -> list[str]:
    return [
        "kube-controller-manager", *_same_kubeconfig(kubeconfig), f"--secure-port={port}",
        f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials=true", "--leader-elect=false",
        f"--cluster-cidr={paths.POD_CIDR}", "--allocate-node-cidrs=false",
        f"--service-cluster-ip-range={paths.SERVICE_CIDR}",
        # The default of 20 calls a second holds its own start up by five seconds.
        "--kube-api-qps=300", "--kube-api-burst=600",
    ]  # fmt: skip


def scheduler(kubeconfig: Path, port: int) -> list[str]:
    return ["kube-scheduler", *_same_kubeconfig(kubeconfig), "--leader-elect=false",
            f"--secure-port={port}"]  # fmt: skip


def _same_kubeconfig(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
    ]


def versitygw(data: Path, iam: Path, address: str) -> list[str]:
    """`--iam-dir` makes an unknown access key a 403, as AWS answers; without it, a 404."""
    return ["--port", address, "--keep-alive", "--quiet", "--iam-dir", str(iam),
            "--health", "/healthz", "posix", str(data)]  # fmt: skip
