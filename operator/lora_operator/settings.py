"""The operator's settings, parsed once from the environment at start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from lora_api.profile import PROFILES, Profile
from lora_api.runtimes import Runtime
from lora_operator.allowed import Allowed
from lora_operator.logs import LogFormat, LogLevel
from lora_operator.podnetwork import PodNetwork, parse_pod_network


class LeaseName(NamedTuple):
    """Which Lease."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "LeaseName | None":
        """`namespace/name`; None when empty.

        Raises:
            ValueError: It is something else.
        """
        if not text:
            return None
        namespace, _, name = text.partition("/")
        if not namespace or not name:
            raise ValueError(f"write the Lease as namespace/name, not {text!r}")
        return cls(namespace, name)


@dataclass(frozen=True)
class Settings:
    """What the chart decides.

    Attributes:
        jobs_image: resolve, merge, report, publish, verify and the fetch init container.
        quantize_image: quantize and evaluate.
        serving_images: Default image of each runtime; also runs the benchmark.
        namespaces: Watched namespaces; empty means all.
        allowed: What objects may name.
        profiles: Defaults that objects may pick, by name.
        resync_seconds: Longest time between two looks at an object.
        backoff_min_seconds: First wait after a failure that the world must cure; it doubles.
        progress_seconds: Shortest time between two status writes that only move progress.
        pod_network: Of the NetworkPolicies that objects' pods get; None: they get none.
        lease: By which one of several replicas leads; None: each works.
        lease_seconds: How long a leader may be silent.
        kueue_api_version: Of the Workloads that say why a Job is held back; empty: none is read.
        runbooks_url: Page of the runbooks, which conditions link; empty for no links.
        tracing_endpoint: URL that takes traces as OTLP over HTTP; empty: none are sent.
    """

    jobs_image: str
    quantize_image: str
    serving_images: Mapping[Runtime, str] = field(default_factory=dict)
    cluster_name: str = ""
    namespaces: tuple[str, ...] = ()
    allowed: Allowed = field(default_factory=Allowed)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    resync_seconds: float = 600.0
    backoff_min_seconds: float = 30.0
    backoff_max_seconds: float = 600.0
    progress_seconds: float = 30.0
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    runbooks_url: str = ""
    lease: LeaseName | None = None
    lease_seconds: float = 15.0
    pod_network: PodNetwork | None = None
    kueue_api_version: str = ""
    tracing_endpoint: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read `LORA_OPERATOR_*`.

        Raises:
            ValueError: An image is missing, a number or a word is not one that is known, or a
                profile says something that profiles do not have.
        """
        env = {
            key.removeprefix("LORA_OPERATOR_"): value
            for key, value in environment.items()
            if key.startswith("LORA_OPERATOR_")
        }
        missing = [k for k in ("JOBS_IMAGE", "QUANTIZE_IMAGE") if not env.get(k)]
        if missing:
            names = ", ".join(f"LORA_OPERATOR_{k}" for k in missing)
            raise ValueError(f"set {names}: the images of the stage Jobs")
        defaults = cls(jobs_image="", quantize_image="")
        return cls(
            jobs_image=env["JOBS_IMAGE"],
            quantize_image=env["QUANTIZE_IMAGE"],
            serving_images={
                runtime: env[f"SERVING_IMAGE_{runtime.name}"]
                for runtime in Runtime
                if env.get(f"SERVING_IMAGE_{runtime.name}")
            },
            cluster_name=env.get("CLUSTER_NAME", ""),
            namespaces=_listed(env.get("NAMESPACES", "")),
            allowed=Allowed(
                images=_listed(env.get("ALLOWED_IMAGES", "")),
                service_accounts=_listed(env.get("ALLOWED_SERVICE_ACCOUNTS", "*")),
                secrets=_listed(env.get("ALLOWED_SECRETS", "*")),
                claims=_listed(env.get("ALLOWED_CLAIMS", "*")),
                endpoints=_listed(env.get("ALLOWED_ENDPOINTS", "*")),
                runtimes=_listed(env.get("ALLOWED_RUNTIMES", "*")),
            ),
            profiles=PROFILES.validate_json(env.get("PROFILES") or "{}"),
            resync_seconds=float(env.get("RESYNC_SECONDS", defaults.resync_seconds)),
            backoff_min_seconds=float(env.get("BACKOFF_MIN_SECONDS", defaults.backoff_min_seconds)),
            backoff_max_seconds=float(env.get("BACKOFF_MAX_SECONDS", defaults.backoff_max_seconds)),
            progress_seconds=float(env.get("PROGRESS_SECONDS", defaults.progress_seconds)),
            log_level=LogLevel(env.get("LOG_LEVEL", defaults.log_level)),
            log_format=LogFormat(env.get("LOG_FORMAT", defaults.log_format)),
            lease=LeaseName.parse(env.get("LEASE", "")),
            lease_seconds=float(env.get("LEASE_SECONDS", defaults.lease_seconds)),
            runbooks_url=env.get("RUNBOOKS_URL", ""),
            pod_network=parse_pod_network(env.get("POD_NETWORK", "")),
            kueue_api_version=env.get("KUEUE_API_VERSION", ""),
            tracing_endpoint=_traces_url(env.get("TRACING_ENDPOINT", "")),
        )


def _traces_url(text: str) -> str:
    """Where spans are posted: an address without a path gets OTLP's own.

    Raises:
        ValueError: It is no HTTP address.
    """
    if not text:
        return ""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"LORA_OPERATOR_TRACING_ENDPOINT is {text!r}; write http://HOST:4318")
    return url._replace(path=url.path if url.path.strip("/") else "/v1/traces").geturl()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item for item in text.split(",") if item)
