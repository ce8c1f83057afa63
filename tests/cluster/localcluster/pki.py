"""Certificates for the cluster, made with the openssl program.

They are made once and kept in the cache, so that a kubeconfig stays valid over down and up.
They protect nothing but a test cluster on addresses of this machine.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from localcluster import paths
from localcluster.shell import run
from localcluster.tools import lock

_MASTERS = "/O=system:masters/CN="
_SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc",
                  "kubernetes.default.svc.cluster.local", "localhost")  # fmt: skip


@dataclass(frozen=True)
class _Certificate:
    name: str
    subject: str
    usage: str = "clientAuth"
    authority: str = "ca"
    alternatives: str = ""


def _wanted() -> tuple[_Certificate, ...]:
    names = ",".join(f"DNS:{name}" for name in _SERVICE_NAMES)
    addresses = f"IP:127.0.0.1,IP:{paths.KUBERNETES_SERVICE_IP},IP:{paths.NODE_IP}"
    node = f"/O=system:nodes/CN=system:node:{paths.NODE_NAME}"
    node_names = f"DNS:{paths.NODE_NAME},IP:127.0.0.1,IP:{paths.NODE_IP}"
    return (
        _Certificate(
            "apiserver", "/CN=kube-apiserver", "serverAuth", alternatives=f"{names},{addresses}"
        ),
        _Certificate("apiserver-kubelet-client", f"{_MASTERS}kube-apiserver-kubelet-client"),
        _Certificate("front-proxy-client", "/CN=front-proxy-client", authority="front-proxy-ca"),
        _Certificate("admin", f"{_MASTERS}kubernetes-admin"),
        _Certificate("kube-controller-manager", "/CN=system:kube-controller-manager"),
        _Certificate("kube-scheduler", "/CN=system:kube-scheduler"),
        _Certificate("kube-proxy", "/CN=system:kube-proxy"),
        _Certificate("kubelet", node),
        _Certificate("kubelet-serving", node, "serverAuth", alternatives=node_names),
    )


def ensure() -> Path:
    """The folder with all keys and certificates, made now if it is not there."""
    recipe = hashlib.sha256(repr(_wanted()).encode()).hexdigest()[:16]
    folder = paths.cache() / "pki" / recipe
    with lock("pki"):
        if not folder.is_dir():
            draft = folder.with_name(f"{recipe}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True, mode=0o700)
            _make(draft)
            draft.rename(folder)
    return folder


def _make(folder: Path) -> None:
    for authority in ("ca", "front-proxy-ca"):
        _authority(folder, authority)
    run("openssl", "genrsa", "-out", folder / "sa.key", "2048")
    run("openssl", "rsa", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")
    for wanted in _wanted():
        _sign(folder, wanted)


def _key(folder: Path, name: str) -> Path:
    path = folder / f"{name}.key"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path,
        hint="Install it: apt-get install openssl")  # fmt: skip
    return path


def _authority(folder: Path, name: str) -> None:
    usage = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
    run("openssl", "req", "-x509", "-new", "-key", _key(folder, name), "-days", "3650",
        "-subj", f"/CN=lora-test-{name}", "-out", folder / f"{name}.crt",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", usage)  # fmt: skip


def _sign(folder: Path, wanted: _Certificate) -> None:
    key, request = _key(folder, wanted.name), folder / f"{wanted.name}.csr"
    extensions = folder / f"{wanted.name}.ext"
    lines = ["keyUsage=critical,digitalSignature,keyEncipherment",
             f"extendedKeyUsage={wanted.usage}"]  # fmt: skip
    if wanted.alternatives:
        lines.append(f"subjectAltName={wanted.alternatives}")
    extensions.write_text("\n".join(lines) + "\n")
    run("openssl", "req", "-new", "-key", key, "-subj", wanted.subject, "-out", request)
    authority = folder / wanted.authority
    run("openssl", "x509", "-req", "-in", request, "-CA", f"{authority}.crt",
        "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "3650",
        "-extfile", extensions, "-out", folder / f"{wanted.name}.crt")  # fmt: skip
    request.unlink()
    extensions.unlink()


def kubeconfig(folder: Path, user: str, server: str, target: Path) -> Path:
    """Writes a kubeconfig with everything inside, readable by its owner only."""

    def data(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o600)
    target.write_text(
        f"""apiVersion: v1
kind: Config
clusters:
- name: local
  cluster: {{server: "{server}", certificate-authority-data: {data("ca.crt")}}}
users:
- name: {user}
  user: {{client-certificate-data: {data(f"{user}.crt")}, client-key-data: {data(f"{user}.key")}}}
contexts:
- name: local
  context: {{cluster: local, user: {user}, namespace: default}}
current-context: local
"""
    )
    return target
