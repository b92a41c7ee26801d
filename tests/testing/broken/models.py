"""Architectures that each break one rule."""

from __future__ import annotations

import numpy as np
import torch
from good import ToyNetwork
from torch import nn
from toy_plugins import Collection

from micore.errors import ModelError
from micore.testing.toys import build_toy

broken = Collection("model")


def checked(network):
    """Return a builder of a network class, that refuses what `build_toy` refuses."""

    def build(n_classes, input_spec, **arguments):
        """Build it."""
        build_toy(n_classes, input_spec, **arguments)
        return network(n_classes, input_spec.shape[1])

    return build


def model(check, says):
    """Add a network class as a broken model: its builder stands in the module under the class's name."""

    def add(network):
        builder = checked(network)
        builder.__module__, builder.__name__ = __name__, f"build_{network.__name__}"
        globals()[builder.__name__] = builder
        broken(check, says)(builder)
        return network

    return add


@model("logits-have-the-right-shape", says="logits")
class OneLogitTooMany(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes + 1, size)


@model("evaluation-is-deterministic", says="differ")
class DropsAlways(ToyNetwork):
    def forward(self, inputs):
        return nn.functional.dropout(super().forward(inputs), training=True)


@model("evaluation-is-deterministic", says="depend on its batch")
class NormalisesOverBatch(ToyNetwork):
    def forward(self, inputs):
        return super().forward(inputs - inputs.mean(dim=0))


@model("seed-decides-the-parameters", says="another network")
class StartsFromNumpy(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes, size)
        with torch.no_grad():
            self.head.bias.fill_(float(np.random.rand()))


@model("global-generators-are-untouched", says="numpy")
class MovesNumpy(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes, size)
        np.random.rand()


@model("gradients-flow", says="reaches the input")
class CutsGradient(ToyNetwork):
    def forward(self, inputs):
        return super().forward(inputs.detach())


@model("gradients-flow", says="spare")
class HasDeadLayer(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes, size)
        self.spare = nn.Parameter(torch.zeros(1))


@model("weights-fit-a-rebuilt-model", says="answers differently")
class HidesScale(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes, size)
        self.scale = torch.rand(())

    def forward(self, inputs):
        return super().forward(inputs) * self.scale


@model("has-penultimate-features", says="no linear")
class HasNoLinear(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes, size)
        self.head = nn.Sequential(nn.Unflatten(1, (4, size, size)), nn.Conv2d(4, n_classes, size), nn.Flatten())


@model("devices-are-not-mixed", says="device")
class LeavesConstantBehind(ToyNetwork):
    def __init__(self, n_classes, size):
        super().__init__(n_classes, size)
        self.shift = torch.zeros(n_classes)

    def forward(self, inputs):
        return super().forward(inputs) + self.shift


@broken("bad-sizes-are-refused", says="accepted")
def accepts_any_number(n_classes, input_spec, **arguments):
    """Build it."""
    return build_toy(max(1, n_classes), input_spec, **arguments)


@broken("bad-sizes-are-refused", says="not enough values")
def fails_anyhow(n_classes, input_spec, **arguments):
    """Build it."""
    _, _, _ = input_spec.shape
    return build_toy(n_classes, input_spec, **arguments)


@broken("unknown-arguments-are-refused", says="unknown argument")
def ignores_arguments(n_classes, input_spec, **arguments):
    """Build it."""
    return build_toy(n_classes, input_spec)


@broken("logits-have-the-right-shape", says="takes no input")
def refuses_everything(n_classes, input_spec):
    """Refuse it."""
    raise ModelError("no")
