"""Which layers of a network are its first ones, and how they are held fixed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, takewhile
from typing import Any, Literal

from torch import nn
from torch.utils.hooks import RemovableHandle

from micore.kit.features import last_linear

Unit = Literal["modules", "parameters"]


def layers_before_the_head(module: nn.Module) -> list[nn.Module]:
    """Return the layers in the order of definition, without the classification layer.

    A layer is a module without parts, or one that has parameters or buffers of its own.

    Raises: ModelError for a network without a linear classification layer.
    """
    head = last_linear(module)
    return [layer for layer in module.modules() if layer is not head and _is_layer(layer)]


def _is_layer(module: nn.Module) -> bool:
    own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return next(own, None) is not None or next(module.children(), None) is None


def first_layers(module: nn.Module, share: float, unit: Unit) -> list[nn.Module]:
    """Return the first layers: a share of all of them, or as many as hold at most a share of all parameters."""
    layers = layers_before_the_head(module)
    if unit == "modules":
        return layers[: round(share * len(layers))]
    allowed, held = share * count(module.parameters()), 0

    def fits(layer: nn.Module) -> bool:
        nonlocal held
        held += count(layer.parameters(recurse=False))
        return held <= allowed

    return list(takewhile(fits, layers))


def count(parameters: Any) -> int:
    """Count the numbers in some parameters."""
    return sum(parameter.numel() for parameter in parameters)


class Freeze:
    """Holds layers fixed: no gradients, and statistics that no batch changes.

    Freezing the parameters alone would let batch normalisation go on averaging over private batches. A hook
    before each of its forward passes keeps it in evaluation mode, whoever switches the network to training.
    """

    def __init__(self, layers: Sequence[nn.Module], head: nn.Linear) -> None:
        tied = {id(parameter) for parameter in head.parameters()}
        own = [parameter for layer in layers for parameter in layer.parameters(recurse=False)]
        self.parameters = [held for held in own if held.requires_grad and id(held) not in tied]
        self._normalisations = [layer for layer in layers if getattr(layer, "running_mean", None) is not None]
        self._handles: list[RemovableHandle] = []

    def on(self) -> None:
        """Hold them fixed."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self._handles = [layer.register_forward_pre_hook(_evaluate) for layer in self._normalisations]

    def off(self) -> None:
        """Let them be trained."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for handle in self._handles:
            handle.remove()


def _evaluate(layer: nn.Module, inputs: Any) -> None:
    layer.eval()
