"""Finding, reading and replacing layers of a network that somebody else built."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from micore.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["caught_outputs", "middle_layers", "outputs_and_logits", "replace_layer", "weighted_leaves"]

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def weighted_leaves(module: nn.Module) -> list[nn.Module]:
    """Return all convolutions and linear layers, in the order of definition."""
    return [layer for layer in module.modules() if isinstance(layer, WEIGHTED)]


def middle_layers(module: nn.Module, n: int = 3) -> list[nn.Module]:
    """Return layers whose outputs are its hidden representations, from the input on.

    The parts of ``module.stages``, where the network names such; else ``n`` convolutions or linear layers at equal
    distances, without the first and the last.

    Raises: ModelError for a network with none.
    """
    stages = getattr(module, "stages", None)
    if isinstance(stages, nn.Sequential) and len(stages):
        return list(stages)
    inner = weighted_leaves(module)[1:-1]
    if not inner:
        raise ModelError("this model has no hidden layer between its first and its last one")
    n = min(n, len(inner))
    return [inner[(index + 1) * len(inner) // n - 1] for index in range(n)]


def replace_layer(module: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put ``new`` where ``old`` is, everywhere; return the network, which is ``new`` if it was ``old`` itself.

    Raises: ModelError when it is not a part of the network.
    """
    if module is old:
        return new
    places = [(parent, name) for parent in module.modules() for name, child in parent.named_children() if child is old]
    if not places:
        raise ModelError(f"{type(old).__name__} is no part of this model")
    for parent, name in places:
        setattr(parent, name, new)
    return module


@contextmanager
def caught_outputs(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Give a list that a forward pass inside the block fills with the layers' outputs, in the order of the layers.

    Of several passes it holds the last one's.
    """
    caught: dict[int, Tensor] = {}
    outputs: list[Tensor] = []

    def hook(index: int, output: Tensor) -> None:
        caught[index] = output
        outputs[:] = [caught[key] for key in sorted(caught)]

    handles = [
        layer.register_forward_hook(lambda _, __, output, index=index: hook(index, output))
        for index, layer in enumerate(layers)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def outputs_and_logits(module: nn.Module, layers: Sequence[nn.Module], inputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the outputs of some layers and the logits (B, classes), in one forward pass."""
    with caught_outputs(layers) as outputs:
        logits: Tensor = module(inputs)
    return list(outputs), logits
