"""Worst-case changes of a batch within a ball (Madry et al., section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from micore.inputs import InputSpec

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Units:
    """From canonical units to those of a model's input: what one canonical unit is there, and where [0, 1] lies.

    scale, low, high: floats, or tensors that fit inputs (B, ...); low and high None: the range is not known.
    """

    scale: Tensor | float = 1.0
    low: Tensor | float | None = None
    high: Tensor | float | None = None

    @classmethod
    def of(cls, spec: InputSpec | None, inputs: Tensor) -> Units:
        """Read them from the input spec of a model; without one the input's own units are taken."""
        if spec is None:
            return cls()
        if not spec.std:
            return cls(1.0, 0.0, 1.0)
        mean, std = _per_channel(spec.mean, inputs), _per_channel(spec.std, inputs)
        return cls(1 / std, (0.0 - mean) / std, (1.0 - mean) / std)


def _per_channel(values: tuple[float, ...], inputs: Tensor) -> Tensor | float:
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, device=inputs.device, dtype=inputs.dtype).view(1, -1, *[1] * (inputs.ndim - 2))


def perturbed(
    inputs: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    norm: Norm,
    epsilon: float,
    steps: int,
    step_size: float,
    units: Units,
) -> Tensor:
    """Return inputs (B, ...) moved within the ball of radius epsilon so that the loss, summed over rows, rises.

    epsilon and step_size are in canonical units. It begins at a random point of the ball (torch's global generator).
    No value leaves the canonical range further than the given input does.
    """
    change = _random_start(inputs, norm, epsilon)
    for _ in range(steps):
        moved = _moved(inputs, change, units).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moved), moved)
        change = _projected(change + step_size * _direction(gradient * units.scale, norm), norm, epsilon)
    return _moved(inputs, change, units).detach()


def _random_start(inputs: Tensor, norm: Norm, epsilon: float) -> Tensor:
    if norm == "linf":
        return (2 * torch.rand_like(inputs) - 1) * epsilon
    direction = torch.randn_like(inputs)
    radius = torch.rand(len(inputs), device=inputs.device, dtype=inputs.dtype) ** (1 / inputs[0].numel())
    return direction * _column(epsilon * radius / _lengths(direction), inputs)


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the change of length 1 that raises the loss most."""
    return gradient.sign() if norm == "linf" else gradient / _column(_lengths(gradient), gradient)


def _projected(change: Tensor, norm: Norm, epsilon: float) -> Tensor:
    if norm == "linf":
        return change.clamp(-epsilon, epsilon)
    return change * _column((epsilon / _lengths(change)).clamp(max=1.0), change)


def _moved(inputs: Tensor, change: Tensor, units: Units) -> Tensor:
    moved = inputs + change * units.scale
    if units.low is None or units.high is None:
        return moved
    low, high = (torch.as_tensor(bound, device=inputs.device, dtype=inputs.dtype) for bound in (units.low, units.high))
    return torch.minimum(torch.maximum(moved, torch.minimum(low, inputs)), torch.maximum(high, inputs))


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = rows.flatten(1).norm(dim=1)
    return lengths.clamp_min(1e-12)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


@contextmanager
def answering(module: nn.Module) -> Iterator[None]:
    """Put a network into eval mode inside the block; each layer then gets its own mode back."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
