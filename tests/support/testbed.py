"""The cluster that the demo and the end-to-end tests run on, with our operator in it.

The local cluster by default; `CLUSTER=current` takes kubectl's current context, where the images,
the bucket and its credentials are named by the environment (see `Testbed.current`).
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.client import Config
from botocore.exceptions import ClientError

from kubectl import Kubectl
from signingkeys import SIGNING_SECRET, KeyPair, provenance

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts/lora-operator"
RELEASE = "lora-operator"
LOCALCLUSTER = REPOSITORY / "tests/cluster/localcluster_cli.py"
OPERATOR_NAMESPACE = "lora-system"
E2E_BUCKET, E2E_SECRET = "e2e", "e2e-s3"
PROFILE, PROFILE_STORE = "local", f"s3://{E2E_BUCKET}/story-store"
PROFILE_VALUES = REPOSITORY / "examples/demo-profile-values.yaml"
TARGETS = ("operator", "jobs", "cpu")


class TestbedError(RuntimeError):
    """The testbed cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Testbed:
    """A cluster, a bucket server and our images.

    Attributes:
        images: Image reference by Dockerfile target.
        s3_endpoint: As pods reach it; the host reaches it there too.
    """

    __test__ = False

    kubectl: Kubectl
    images: dict[str, str]
    s3_endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    helm: str = "helm"
    signer: KeyPair = field(default_factory=KeyPair, repr=False)

    @classmethod
    def up(cls) -> "Testbed":
        """The local cluster, started and with current images; or the current one."""
        if os.environ.get("CLUSTER") == "current":
            return cls.current()
        _localcluster("up")
        environment = _exports(_localcluster("env"))
        environment_image = _image("cpu-environment")
        images = {t: _image(t, f"CPU_ENVIRONMENT={environment_image}") for t in TARGETS}
        tools = environment["PATH"].split(":")[0]
        return cls(
            kubectl=Kubectl((f"{tools}/kubectl",), Path(environment["KUBECONFIG"])),
            images=images,
            s3_endpoint=environment["AWS_ENDPOINT_URL"],
            access_key=environment["AWS_ACCESS_KEY_ID"],
            secret_key=environment["AWS_SECRET_ACCESS_KEY"],
            helm=f"{tools}/helm",
        )

    @classmethod
    def current(cls) -> "Testbed":
        """The current kubectl context.

        Raises:
            TestbedError: One of the variables that name images and bucket is missing.
        """
        names = [f"IMAGE_{t.upper()}" for t in TARGETS]
        names += ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        missing = [n for n in names if not os.environ.get(n)]
        if missing:
            raise TestbedError(
                f"CLUSTER=current needs {', '.join(missing)}: images that the cluster can pull "
                "(the Dockerfile's targets) and an S3 endpoint that its pods and this host reach"
            )
        return cls(
            kubectl=Kubectl(("kubectl",)),
            images={t: os.environ[f"IMAGE_{t.upper()}"] for t in TARGETS},
            s3_endpoint=os.environ["AWS_ENDPOINT_URL"],
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        )

    def install_operator(
        self, profiles: Mapping[str, Any] | None = None, chart: Path = CHART, **settings: str
    ) -> None:
        """Install or upgrade the chart and wait until the operator is ready."""
        values = {
            "images.operator": self.images["operator"],
            "images.jobs": self.images["jobs"],
            "images.quantize": self.images["cpu"],
            "images.serving.VLLM": self.images["cpu"],
            "images.serving.TRANSFORMERS": self.images["cpu"],
            "settings.progressSeconds": "2",
            "settings.backoffMinSeconds": "5",
        } | settings
        given = ["--set-json", f"profiles={json.dumps(profiles or {})}"]
        for key, value in values.items():
            given += ["--set", f"{key}={value}"]
        self.run_helm("upgrade", "--install", RELEASE, str(chart), "--create-namespace", "--wait",
                      "--timeout", "3m", *given)  # fmt: skip

    def run_helm(self, *arguments: str) -> str:
        """What helm says, in the operator's namespace.

        Raises:
            TestbedError: It exited non-zero.
        """
        environment = dict(os.environ)
        if self.kubectl.kubeconfig:
            environment["KUBECONFIG"] = str(self.kubectl.kubeconfig)
        done = subprocess.run(
            [self.helm, *arguments, "--namespace", OPERATOR_NAMESPACE],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        if done.returncode:
            raise TestbedError(f"helm {arguments[0]} failed: {done.stdout}{done.stderr.strip()}")
        return done.stdout

    def profile(self) -> dict[str, Any]:
        """What the demo's platform team gives its objects, with our bucket in place of its own.

        It trusts our key alone.
        """
        profile: dict[str, Any] = yaml.safe_load(PROFILE_VALUES.read_text())["profiles"][PROFILE]
        profile["artifact"]["uri"] = PROFILE_STORE
        [connection] = profile["connections"]
        connection["s3"] = {"endpoint": self.s3_endpoint, "secretRef": {"name": E2E_SECRET}}
        return profile | {"provenance": provenance(self.signer)}

    def give_signing_key(self, namespace: str) -> None:
        """The Secret that the profile names."""
        self.kubectl.within(namespace).apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SIGNING_SECRET},
             "stringData": {"key.pem": self.signer.private_pem.decode()}},
        )  # fmt: skip

    def s3(self) -> Any:
        """A boto3 client of the bucket server."""
        return boto3.client(
            "s3", endpoint_url=self.s3_endpoint, region_name="us-east-1",
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
        )  # fmt: skip

    def upload(self, source: Path, bucket: str, prefix: str) -> None:
        """Copy a file or a folder under a prefix; what is there with equal bytes is left alone."""
        client = self.s3()
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError:
            client.create_bucket(Bucket=bucket)
        files = (
            [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
        )
        for file in files:
            key = prefix if source.is_file() else f"{prefix}/{file.relative_to(source).as_posix()}"
            body = file.read_bytes()
            if not _holds(client, bucket, key, body):
                client.put_object(Bucket=bucket, Key=key, Body=body)

    def empty(self, uri: str) -> None:
        """Remove every object under `s3://bucket/prefix`; a missing bucket is as good as empty."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        client = self.s3()
        try:
            for page in client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=f"{prefix}/"
            ):
                for found in page.get("Contents", []):
                    client.delete_object(Bucket=bucket, Key=found["Key"])
        except client.exceptions.NoSuchBucket:
            return

    def prepare_namespace(self, namespace: str, secret: str) -> Kubectl:
        """A namespace with the Pod Security level `restricted` and the bucket's credentials."""
        level = "pod-security.kubernetes.io/enforce"
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": namespace, "labels": {level: "restricted"}}},
        )  # fmt: skip
        kubectl = self.kubectl.within(namespace)
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret},
             "stringData": {"AWS_ACCESS_KEY_ID": self.access_key,
                            "AWS_SECRET_ACCESS_KEY": self.secret_key}},
        )  # fmt: skip
        return kubectl


def _holds(client: Any, bucket: str, key: str, body: bytes) -> bool:
    try:
        return bool(client.get_object(Bucket=bucket, Key=key)["Body"].read() == body)
    except ClientError:
        return False


def _image(target: str, *build_args: str) -> str:
    """Build a target of the Dockerfile for the local cluster; returns the image's name."""
    options = [word for argument in build_args for word in ("--build-arg", argument)]
    return _localcluster("image", "build", target, *options).split()[-1]


def _localcluster(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(LOCALCLUSTER), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TestbedError(f"`{LOCALCLUSTER.name} {' '.join(arguments)}` failed, see above")
    return done.stdout


def _exports(text: str) -> dict[str, str]:
    words = (shlex.split(line)[1] for line in text.splitlines() if line.startswith("export "))
    return dict(word.split("=", 1) for word in words)
