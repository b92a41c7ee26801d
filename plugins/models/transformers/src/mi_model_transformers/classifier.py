"""Classifiers of texts: logits of a checkpoint in the order of the target's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mi_model_transformers.encoder import offered, seen
from micore.errors import ModelError
from micore.inputs import InputSpec


class SequenceClassifier(nn.Module):
    """A transformer that gives logits of classes.

    Inputs: ids int64 (N, T), padded at the end, or relaxed texts, distributions of tokens (N, T, V), taken as full.
    network: a transformers model with ``logits``; order: the place of each class among its own.
    """

    comes_trained = True

    def __init__(self, network: Any, own_input: InputSpec, order: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.own_input = own_input
        self.order = tuple(order)
        network.config.pad_token_id = own_input.options["pad_id"]  # those that read the last token look for it

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        visible = seen(inputs, int(self.own_input.options["pad_id"]))
        logits: Tensor = self.network(**offered(self.network, inputs, visible)).logits.float()
        return logits[:, torch.tensor(self.order, device=logits.device)]


def class_order(own: Sequence[str], classes: Sequence[str], *, by_number: bool) -> list[int]:
    """Return the place of each of the data set's classes among the checkpoint's own.

    Names count, upper and lower case alike, unless the checkpoint has none (``LABEL_0``) or ``by_number`` says that the
    order is the same.
    Raises: ModelError when there are more or fewer classes, or other ones.
    """
    if len(own) != len(classes):
        raise ModelError(
            f"the checkpoint has {len(own)} classes; the data set has {len(classes)}",
            hint="give the data set that the target is meant for",
        )
    if by_number or all(name.upper() == f"LABEL_{number}" for number, name in enumerate(own)):
        return list(range(len(own)))
    places = {name.casefold(): place for place, name in enumerate(own)}
    unknown = [name for name in classes if name.casefold() not in places]
    if unknown or len(places) < len(own):
        raise ModelError(
            f"the checkpoint's classes are {', '.join(own[:5])}; the data set's {', '.join(classes[:5])}",
            hint="-M labels=number if they are in the same order",
        )
    return [places[name.casefold()] for name in classes]
