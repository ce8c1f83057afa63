"""What GPTQModel's log comes to."""

from dataclasses import replace
from typing import Any

from lora_api.gates import modules_row
from lora_jobs.quantizing.report import QuantizeReport, outcomes


def entry(layer: int, module: str, loss: str, damp: str = "0.05000") -> dict[str, Any]:
    return {
        "layer": layer, "module": module, "loss": loss, "samples": "1024", "damp": damp,
        "time": "0.123",
    }  # fmt: skip


def report(*log: dict[str, Any]) -> QuantizeReport:
    return QuantizeReport(
        bits=4, group_size=128, damping="0.05", modules=outcomes(log), bits_per_weight=4.25,
        calibration_tokens=1024, device="cpu", seconds=1.0, tools={"gptqmodel": "7.6.0"},
    )  # fmt: skip


def test_the_worst_module_is_named() -> None:
    found = report(
        entry(1, "mlp.down_proj", "0.0210000000"),
        entry(0, "mlp.up_proj", "0.0000900000"),
    )
    assert found.notes()["worstLoss"] == "0.021 at layers.1.mlp.down_proj"
    assert "worst loss 0.021 at layers.1.mlp.down_proj" in found.message()
    assert (found.notes()["fallbacks"], found.notes()["dampingRaised"]) == ("0", "0")


def test_modules_that_were_rounded_to_nearest_are_counted_and_named() -> None:
    found = report(
        entry(0, "mlp.up_proj", "fallback(rtn): 0.0012"),
        entry(0, "mlp.down_proj", "rtn fallback", damp="0.00000"),
        entry(0, "self_attn.q_proj", "nan"),
        entry(0, "self_attn.k_proj", "0.01"),
    )
    assert found.notes()["fallbacks"].startswith("3 (")
    assert "layers.0.mlp.up_proj" in found.message()
    assert found.notes()["worstLoss"] == "0.01 at layers.0.self_attn.k_proj"


def test_raised_damping_is_counted() -> None:
    found = report(
        entry(0, "mlp.up_proj", "0.01", damp="0.06000"), entry(0, "mlp.down_proj", "0.01")
    )
    assert found.notes()["dampingRaised"] == "1 (layers.0.mlp.up_proj)"


def test_a_loss_far_above_that_of_the_same_module_in_other_layers_is_named() -> None:
    usual = [entry(layer, "mlp.up_proj", "0.001") for layer in range(4)]
    found = report(*usual, entry(4, "mlp.up_proj", "0.0101"), entry(0, "mlp.down_proj", "0.5"))
    assert found.notes()["lossOutliers"] == "1 (layers.4.mlp.up_proj)"
    assert report(*usual, entry(4, "mlp.up_proj", "0.01")).notes()["lossOutliers"] == "0"
    assert report(entry(0, "mlp.up_proj", "nan")).loss_outliers == ()


def test_gates_get_the_counts_of_gptq_and_none_of_awq() -> None:
    log = [
        entry(0, "mlp.up_proj", "fallback(rtn): 0.0012"),
        entry(0, "mlp.down_proj", "0.01", damp="0.0600"),
        entry(1, "mlp.up_proj", "0.01"),
    ]
    assert report(*log).measurements() == modules_row(3, fallbacks=1, damping_raised=1)
    assert "damping raised: 1 (layers.0.mlp.down_proj)" in report(*log).message()
    assert replace(report(*log), damping="").measurements() == {}


def test_the_order_in_which_threads_finish_does_not_show() -> None:
    log = [entry(1, "b", "0.1"), entry(0, "b", "0.2"), entry(0, "a", "0.3")]
    assert outcomes(log) == outcomes(reversed(log))
    assert next(m.row() for m in outcomes(log)) == ("0", "a", "0.3", "1024", "0.05000")
