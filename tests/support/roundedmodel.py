"""A model with its layers rounded to nearest, and how far two models are apart in what they say."""

from typing import Any


def log_probabilities(model: Any, rows: list[list[int]]) -> Any:
    """(row, position, token) in nats."""
    import torch

    with torch.no_grad():
        return model(torch.tensor(rows)).logits.double().log_softmax(-1)


def divergence(expected: Any, found: Any) -> float:
    """Kullback-Leibler divergence from `expected`, in nats per position."""
    return float((expected.exp() * (expected - found)).sum(-1).mean())


def round_to_nearest(model: Any, group_size: int, *, symmetric: bool) -> None:
    """Put what four bits without calibration hold in the place of every decoder layer's weights."""
    import torch

    for layer in model.model.layers.modules():
        if not isinstance(layer, torch.nn.Linear):
            continue
        weight = layer.weight.data
        groups = weight.reshape(weight.shape[0], -1, group_size)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        if symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = (high - low) / 15
        zero = torch.full_like(scale, 8) if symmetric else (-low / scale).round()
        codes = ((groups / scale).round() + zero).clamp(0, 15)
        layer.weight.data = ((codes - zero) * scale).reshape(weight.shape)
