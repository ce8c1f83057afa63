"""What a real API server admits, refuses and fills in; and that the models agree with it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from documented import objects
from gitops import by_kstatus
from kubectl import Kubectl, KubectlError
from lora_api.runtimes import RESERVED_FLAGS
from lora_api.spec import parse_spec
from lora_api.status import Status
from signingkeys import KINDS, KeyPair

pytestmark = pytest.mark.integration
SAMPLES = Path(__file__).parents[2] / "crds/samples"


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    return document


def changed(name: str, path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(sample(name))
    *parents, last = path.split(".")
    node = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return document


def server_refuses(kubectl: Kubectl, document: dict[str, Any]) -> str:
    with pytest.raises(KubectlError) as refusal:
        kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(document))
    return str(refusal.value)


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_samples_are_admitted_and_a_second_apply_changes_nothing(
    kubectl: Kubectl, name: str
) -> None:
    document = sample(name)
    document["metadata"]["name"] = f"twice-{name}"
    kubectl.apply(document)
    before = kubectl.get("lora", f"twice-{name}")
    assert "unchanged" in kubectl.apply(document)
    assert kubectl.get("lora", f"twice-{name}")["metadata"] == before["metadata"]


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_server_fills_in_the_defaults_that_the_models_have(kubectl: Kubectl, name: str) -> None:
    document = sample(name)
    document["metadata"]["name"] = f"filled-{name}"
    kubectl.apply(document)
    live = kubectl.get("lora", f"filled-{name}")["spec"]
    mine = parse_spec(document["spec"])
    assert parse_spec(live) == mine


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_sign_here_are_admitted(kubectl: Kubectl, kind: str) -> None:
    document = changed("full", "spec.provenance.publicKeys.0", KeyPair(kind).public_pem)
    admitted = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(document))
    assert "created" in admitted


@pytest.mark.parametrize(("name", "shown"), objects(), ids=[name for name, _ in objects()])
def test_an_object_in_the_docs_is_admitted(kubectl: Kubectl, name: str, shown: Any) -> None:
    asked = shown | {"metadata": {"name": shown["metadata"]["name"]}}
    strictly = ("create", "--dry-run=server", "--validate=strict")
    assert "created" in kubectl(*strictly, "-f", "-", stdin=yaml.safe_dump(asked)), name


def test_no_tool_takes_an_object_for_current_that_nobody_has_looked_at(kubectl: Kubectl) -> None:
    document = sample("minimal")
    document["metadata"]["name"] = "unseen"
    kubectl.apply(document)
    live = kubectl.get("lora", "unseen")
    assert live["status"] == Status().to_json()
    assert by_kstatus(live) == ["InProgress"]
    assert "unchanged" in kubectl.apply(document)


REFUSED: dict[str, tuple[str, object, str]] = {
    "an unknown runtime": ("spec.serving.runtime", "TGI", "supported values"),
    "a group size that engines refuse": ("spec.quantization.gptq.groupSize", 96, "supported value"),
    "three bits": ("spec.quantization.gptq.bits", 3, "supported value"),
    "a reserved engine flag": ("spec.serving.args.0", "--model=x", "set by the operator"),
    "a reserved flag and its value in one item": ("spec.serving.args.0", "--port 1", "set by"),
    "an abbreviated reserved flag": ("spec.serving.args.0", "--trust_remote", "set by"),
    "a source that is no URI we know": ("spec.baseModel.uri", "ftp://x/y", "should match"),
    "a percent without its sign": ("spec.gates.taskQuality.maxIncrease", "5", "should match"),
    "calibration on the evaluation set": (
        "spec.quantization.calibration.sources.0.uri",
        "s3://datasets/sql/heldout.jsonl",
        "its texts were seen",
    ),
    "calibration weights for some sources only": (
        "spec.quantization.calibration.sources",
        [{"uri": "s3://a/b", "weight": "1"}, {"uri": "s3://a/c"}],
        "every calibration source a weight",
    ),
    "a calibration source of no weight": (
        "spec.quantization.calibration.sources",
        [{"uri": "s3://a/b", "weight": "0.00"}],
        "leave it out",
    ),
    "an endpoint with credentials in it": (
        "spec.connections.0.s3.endpoint", "https://key:secret@s3.internal", "should match",
    ),
    "an endpoint that parsers read differently": (
        "spec.connections.0.s3.endpoint", "https://evil.example\\@s3.internal", "should match",
    ),
    "a connection of two kinds": ("spec.connections.0.huggingFace", {}, "exactly one of"),
    "a workload without concurrency 1": (
        "spec.benchmark.workload.concurrency", [8], "must contain 1",
    ),
    "a bake where nothing is left to go back to": (
        "spec.serving.strategy.type", "Recreate", "no meaning with type Recreate",
    ),
    "4 bits without calibration": (
        "spec.quantization", {"gptq": {"bits": 4}}, "calibration is missing",
    ),
    "a candidate of method None with parameters": (
        "spec.quantization.candidates.0.method", "None", "method GPTQ needs gptq",
    ),
    "a key of a kind that does not sign here": (
        "spec.provenance.publicKeys.0", KeyPair("rsa").public_pem, "ECDSA P-256 or Ed25519",
    ),
    "a private key among the public ones": (
        "spec.provenance.publicKeys.0", KeyPair("p256").private_pem.decode(), "BEGIN PUBLIC KEY",
    ),
    "a list of keys that trusts nobody": ("spec.provenance.publicKeys", [], "at least 1 item"),
    "no adapter": ("spec.adapters", [], "at least 1 item"),
    "a name too long to derive others": ("metadata.name", "x" * 41, "more than 40"),
}  # fmt: skip


@pytest.mark.fault("F29")
@pytest.mark.parametrize(("path", "value", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_the_server_refuses(kubectl: Kubectl, path: str, value: object, says: str) -> None:
    assert says.lower() in server_refuses(kubectl, changed("full", path, value)).lower()


IN_SPEC = {what: row for what, row in REFUSED.items() if row[0].startswith("spec.")}


@pytest.mark.parametrize(("path", "value", "says"), IN_SPEC.values(), ids=IN_SPEC.keys())
def test_the_models_refuse_the_same(path: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError):
        parse_spec(changed("full", path, value)["spec"])


@pytest.mark.parametrize("flag", RESERVED_FLAGS)
def test_every_reserved_flag_is_refused_by_the_server(kubectl: Kubectl, flag: str) -> None:
    document = changed("full", "spec.serving.args", ["--max-model-len", "8192", flag])
    assert "set by the operator" in server_refuses(kubectl, document)


@pytest.fixture
def misspelt() -> Callable[[], dict[str, Any]]:
    return lambda: changed("full", "spec.serving.replica", 3)


def test_a_misspelt_field_is_named(kubectl: Kubectl, misspelt: Callable[[], Any]) -> None:
    assert 'unknown field "spec.serving.replica"' in server_refuses(kubectl, misspelt())
    with pytest.raises(ValidationError, match="replica"):
        parse_spec(misspelt()["spec"])
