"""Stage E: a small targeted attack on the finished images, which makes the target surer of them.

It changes no more than an L2 ball of radius 0.5, so a person sees little of it; but it is aimed at this very target,
whose confidence in the images then says nothing about them. Judges that are independent of the target see through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.errors import BudgetExceeded
from micore.kit.losses import cross_entropy
from micore.kit.projections import project_l2_ball
from micore.runtime import Random, Runtime
from micore.threat import Ledger

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Polish:
    """Projected gradient descent (Madry et al., ICLR 2018): L2, targeted, random start, the best state is kept.

    radius and step: L2 lengths of images in [0, 1].
    """

    radius: float
    step: float
    steps: int

    def run(
        self, logits: Logits, images: Tensor, labels: Tensor, owners: Sequence[str], streams: Sequence[Random],
        ledger: Ledger, runtime: Runtime,
    ) -> tuple[Tensor, bool]:  # fmt: skip
        """Return images (N, C, H, W) in [0, 1] that the target is surer of, and whether the budget was enough.

        Rows that the budget left out come back as they were.
        """
        polished, tile = images.clone(), runtime.tile
        for first in range(0, len(images), tile):
            part = slice(first, first + tile)
            fill = tile - len(images[part])
            try:
                with torch.enable_grad(), ledger.owned_by(owners[part], padding=fill, rows=tile):
                    polished[part] = self._best(logits, images[part], labels[part], streams[part], fill)
            except BudgetExceeded:
                return polished, False
        return polished, True

    def _best(self, logits: Logits, images: Tensor, labels: Tensor, streams: Sequence[Random], fill: int) -> Tensor:
        """Polish one tile, filled up with its first row."""
        starts = torch.stack([stream.uniform(images.shape[1:]) for stream in streams]) - 0.5
        centre, wanted, moved = (
            torch.cat([rows, rows[:1].expand(fill, *rows.shape[1:])]) for rows in (images, labels, images + starts)
        )
        now = project_l2_ball(moved, centre, self.radius).clamp(0, 1)
        best, lowest = now, torch.full((len(now),), torch.inf, device=now.device)
        for step in range(self.steps + 1):
            last = step == self.steps
            values = now.detach().requires_grad_(not last)
            losses = cross_entropy(logits(values), wanted)
            better = losses.detach() < lowest
            lowest = torch.where(better, losses.detach(), lowest)
            best = torch.where(better.view(-1, 1, 1, 1), now, best)
            if not last:
                (gradients,) = torch.autograd.grad(losses.sum(), values)
                now = self._moved(now, gradients, centre)
        return best[: len(images)]

    def _moved(self, images: Tensor, gradients: Tensor, centre: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(gradients.flatten(1), dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        return project_l2_ball(images - self.step * gradients / lengths, centre, self.radius).clamp(0, 1)
