"""The penultimate features of any classifier whose last layer is linear."""

from __future__ import annotations

from torch import Tensor, nn

from micore.errors import ModelError


def last_linear(module: nn.Module) -> nn.Linear:
    """Return the classification layer: the last `nn.Linear` in the order of definition.

    Raises: ModelError when there is none.
    """
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linears:
        raise ModelError("this model has no linear classification layer, so it has no penultimate features")
    return linears[-1]


def features_and_logits(module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into the last linear layer, (B, d), and the logits, in one forward pass."""
    caught: list[Tensor] = []
    handle = last_linear(module).register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0]))
    try:
        logits = module(inputs)
    finally:
        handle.remove()
    return caught[-1], logits
