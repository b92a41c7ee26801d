"""A target whose gradients are averaged over changed copies of each sample (paper, equation 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mi_attack_alignmi.changes import Change, copy_numbers
from micore.kit.target_views import ModuleView
from micore.runtime import Runtime
from micore.target import CountedModule

__all__ = ["Value", "aligned"]

Value = Literal["mean", "plain"]


def aligned(
    counted: CountedModule, change_for: Callable[[int], Change], copies: int, value: Value, runtime: Runtime
) -> ModuleView:
    """Return a module whose gradients are those of changed copies, in the mean.

    change_for: gives the change of images of so many channels. value: what the logits are where gradients are wanted:
    the mean of the copies' (``copies`` queries) or the sample's own (one more). Where no gradients are wanted they are
    the sample's own, for one query.
    """
    stream = runtime.rng("alignmi", "keys")
    keys = [stream.seed() for _ in range(copies)]

    def forward(images: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and images.requires_grad):
            plain: Tensor = counted(images)
            return plain
        own = _own_logits(counted, images) if value == "plain" else None
        change = change_for(images.shape[1])
        numbers = copy_numbers(images, keys, change.n_numbers(images))
        # A pass for each copy: whoever reads features of the network while it is asked finds as many as there are rows.
        answers = [counted(change.apply(images, numbers(copy))) for copy in range(copies)]
        mean = torch.stack(answers).mean(dim=0)
        return mean if own is None else mean + (own - mean).detach()

    return ModuleView(counted, forward)


@torch.no_grad()
def _own_logits(counted: CountedModule, images: Tensor) -> Tensor:
    logits: Tensor = counted(images)
    return logits
