"""The distance between the statistics of images in a network and those that its batch normalisation remembers.

The published term is R_f = sum over layers of ||mean - running_mean||_2 + ||variance - running_variance||_2, with the
biased variance of the batch (Yin et al., CVPR 2020, eq. 4). Here the batch is several groups, each with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from micore.errors import ModelError

__all__ = ["LayerInput", "batch_norm_layers", "logits_and_inputs", "statistics_distance"]

Logits = Callable[[Tensor], Tensor]


class LayerInput(NamedTuple):
    """What went into a batch normalisation: maps (N, channels, height, width)."""

    layer: nn.BatchNorm2d
    maps: Tensor


def batch_norm_layers(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the layers that remember the statistics of the training, in the order of their definition.

    Raises: ModelError when there is none.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    remembering = [layer for layer in layers if layer.running_mean is not None]
    if not remembering:
        what = "whose BatchNorm2d layers keep no running statistics" if layers else "without BatchNorm2d layers"
        raise ModelError(
            f"deep-inversion cannot attack a target {what}: there are no statistics to match",
            hint="mi-face needs no such layers and no data; attacks with a prior, such as plmi, need public images",
        )
    return remembering


def logits_and_inputs(
    logits: Logits, layers: Sequence[nn.BatchNorm2d], images: Tensor
) -> tuple[Tensor, list[LayerInput]]:
    """Run images (N, C, H, W) through a network; return its logits and what went into the layers.

    A layer that the forward pass uses twice is there twice, one that it does not use is not.
    """
    caught: list[LayerInput] = []
    handles = [
        layer.register_forward_pre_hook(lambda module, arguments: caught.append(LayerInput(module, arguments[0])))
        for layer in layers
    ]
    try:
        return logits(images), caught
    finally:
        for handle in handles:
            handle.remove()


def statistics_distance(
    inputs: Sequence[LayerInput], first: nn.BatchNorm2d, groups: int, first_weight: float
) -> Tensor:
    """Return R_f of each group, (groups,): the batch is that many groups of equal size, one after the other.

    first: the layer whose term counts ``first_weight`` times.
    """
    terms = [_layer_distance(layer, maps, groups) * (first_weight if layer is first else 1.0) for layer, maps in inputs]
    return torch.stack(terms).sum(dim=0)


def _layer_distance(layer: nn.BatchNorm2d, maps: Tensor, groups: int) -> Tensor:
    if layer.running_mean is None or layer.running_var is None:
        raise TypeError("a layer without running statistics has no distance")
    grouped = maps.float().unflatten(0, (groups, -1))  # (groups, images, channels, height, width)
    variances, means = torch.var_mean(grouped, dim=(1, 3, 4), correction=0)
    return _norm(means - layer.running_mean) + _norm(variances - layer.running_var)


def _norm(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
