"""Configuration files of the node's services.

Settings that matter, each found by a failure:
- kubelet `failCgroupV1: false` and `cgroupDriver: cgroupfs` (no systemd here); `oomScoreAdj: 0` and
  containerd's `restrict_oom_score_adj`, so that a root without CAP_SYS_RESOURCE is enough.
- kube-proxy's conntrack values are 0: it must not write sysctls of the host.
- image garbage collection is off: linked images cannot be pulled again.
"""

from __future__ import annotations

import json
from pathlib import Path

from localcluster import paths, pki, tools
from localcluster.shell import which

PAUSE_IMAGE = "local/pause:1"
_USERS = ("admin", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")


def kubeconfig(user: str) -> Path:
    return paths.conf() / f"{user}.kubeconfig"


def write(certificates: Path) -> None:
    """Writes everything the services read into run/conf."""
    conf = paths.conf()
    (conf / "cni").mkdir(parents=True, exist_ok=True)
    for user in _USERS:
        pki.kubeconfig(certificates, user, f"https://127.0.0.1:{paths.API_PORT}", kubeconfig(user))
    (conf / "cni" / "10-bridge.conflist").write_text(_cni())
    (conf / "containerd.toml").write_text(_containerd())
    (conf / "kubelet.yaml").write_text(_kubelet(certificates))
    (conf / "kube-proxy.yaml").write_text(_kube_proxy())
    (conf / "Corefile").write_text(_corefile())
    # Pods get names of the cluster only: there is no way out of the node's network.
    (conf / "resolv.conf").write_text("nameserver 127.0.0.1\n")


def _cni() -> str:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(paths.run() / "ipam"),
            "ranges": [[{"subnet": paths.POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]})


def _containerd() -> str:
    unused = ("nri.v1.nri", "snapshotter.v1.btrfs", "snapshotter.v1.zfs",
              "snapshotter.v1.devmapper", "snapshotter.v1.blockfile", "snapshotter.v1.erofs",
              "tracing.processor.v1.otlp", "internal.v1.tracing")  # fmt: skip
    disabled = ", ".join(f'"io.containerd.{name}"' for name in unused)
    cni = tools.NODE.folder() / "cni"
    return f"""version = 3
root = "{paths.store()}/containerd"
state = "{paths.run()}/containerd"
oom_score = 0
disabled_plugins = [{disabled}]
[grpc]
  address = "{paths.containerd_socket()}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  enable_selinux = false
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{which("runc") or "runc"}"
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{paths.conf()}/cni"
"""


def _kubelet(certificates: Path) -> str:
    # YAML is a superset of JSON, so the standard library can write it.
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{paths.CGROUP}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket()}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{certificates}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "address": paths.NODE_IP,
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": f"{certificates}/kubelet-serving.crt",
        "tlsPrivateKeyFile": f"{certificates}/kubelet-serving.key",
        "clusterDNS": [paths.DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{paths.conf()}/resolv.conf",
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1Gi",
            "imagefs.available": "1Gi",
        },
        "oomScoreAdj": 0,
        "podLogsDir": f"{paths.run()}/pod-logs",
        "volumePluginDir": f"{paths.run()}/volume-plugins",
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "serializeImagePulls": False,
        "shutdownGracePeriod": "0s",
    }
    return json.dumps(config, indent=1)


def _kube_proxy() -> str:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": paths.POD_CIDR,
        "hostnameOverride": paths.NODE_NAME,
        "bindAddress": "127.0.0.1",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": str(kubeconfig("kube-proxy"))},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "nodePortAddresses": ["127.0.0.0/8", f"{paths.NODE_IP}/32"],
    }
    return json.dumps(config, indent=1)


def _corefile() -> str:
    return f""".:{paths.DNS_PORT} {{
    bind {paths.NODE_IP}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig("admin")}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""
