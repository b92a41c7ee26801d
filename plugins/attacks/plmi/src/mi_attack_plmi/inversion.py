"""The pure parts of PLG-MI: pseudo labels, and the search in latent space.

Source: Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial
Network", AAAI 2023: section 3.2 (pseudo labels), 3.3 (max-margin loss, `micore.kit.losses.max_margin`) and
3.4 (image reconstruction).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mi_image.augment import Augmentation, UniformSource
from micore.errors import BudgetExceeded
from micore.kit.losses import max_margin
from micore.kit.selection import top_k_per_class

Generator = Callable[[Tensor, Tensor], Tensor]
Logits = Callable[[Tensor], Tensor]
Draws = Callable[[int], Tensor]
Context = Callable[[], AbstractContextManager[Any]]
Spend = Callable[[int], AbstractContextManager[Any]]


def select_pseudo_labels(scores: Tensor, n_top: int) -> Tensor:
    """Return the (K, n_top) rows of ``scores`` (N, K) that are most confident of each class, best first.

    Equal scores: the lowest row first, on every device. An image may serve several classes. With fewer
    than ``n_top`` images every class gets all of them, (K, N).
    """
    return top_k_per_class(scores, min(n_top, len(scores))).indices


def view_draws(
    sources: Sequence[UniformSource], restarts: int, views: int, augmentation: Augmentation
) -> Draws:
    """Return a function n_steps -> (n_steps, views, B, P): the random numbers of every step, view and row.

    One source per case; B = len(sources) * restarts, rows case by case. A case's numbers come from its own
    source only, so they do not depend on which other cases are in the batch.
    """

    def draw(n_steps: int) -> Tensor:
        shape = (n_steps, views, restarts, augmentation.n_numbers)
        return torch.cat([source.uniform(shape) for source in sources], dim=2)

    return draw


@dataclass(frozen=True)
class Inversion:
    """What the search found, one row per case and restart.

    latents: (B, d). images: (B, C, H, W) in [0, 1]. history: (steps, B), the margins, summed over the
    views.
    scores: (B,) in [0, 1], the target's confidence in the label for the unchanged image; without the
    budget for that, the confidence that the last margin implies against the strongest rival alone.
    complete: False when the budget ended the search early.
    """

    latents: Tensor
    images: Tensor
    scores: Tensor
    history: Tensor
    complete: bool


@dataclass(frozen=True)
class Search:
    """The search of section 3.4: Adam on the latents of all rows at once.

    Losses are summed over the rows and Adam is elementwise, so rows do not influence each other.
    generator: latents (B, d), labels (B,) -> images. target_logits: images -> (B, K).
    spend: the context in which the target is asked for so many views of every row, for the accounting.
    """

    generator: Generator
    target_logits: Logits
    augmentation: Augmentation
    learning_rate: float = 0.1
    autocast: Context = nullcontext
    spend: Spend = nullcontext
    block: int = 50

    def run(self, latents: Tensor, labels: Tensor, draw: Draws, steps: int) -> Inversion:
        """Search from ``latents`` (B, d); ``draw`` is asked for the numbers of ``block`` steps at a time."""
        latents = latents.clone().requires_grad_(True)
        adam = torch.optim.Adam([latents], self.learning_rate)
        history: list[Tensor] = []
        complete = True
        try:
            for step in range(steps):
                if step % self.block == 0:
                    numbers = draw(self.block)
                losses = self.losses(latents, labels, numbers[step % self.block])
                (latents.grad,) = torch.autograd.grad(losses.sum(), latents)
                adam.step()
                history.append(losses.detach())
        except BudgetExceeded:
            complete = False
        return self._conclude(latents.detach(), labels, history, complete)

    def losses(self, latents: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        """Return the margins (B,), summed over the views given by ``numbers`` (views, B, P)."""
        views = len(numbers)
        with self.autocast():
            images = self.generator(latents, labels)
        seen = self.augmentation.apply(images.repeat(views, 1, 1, 1), numbers.flatten(0, 1))
        with self.autocast(), self.spend(views):
            logits = self.target_logits(seen)
        return max_margin(logits, labels.repeat(views)).view(views, -1).sum(dim=0)

    @torch.no_grad()
    def _conclude(self, latents: Tensor, labels: Tensor, history: list[Tensor], complete: bool) -> Inversion:
        with self.autocast():
            images = self.generator(latents, labels)
        margins = torch.stack(history) if history else latents.new_zeros((0, len(latents)))
        try:
            with self.autocast(), self.spend(1):
                confidences = self.target_logits(images).float().softmax(dim=1)
            scores = confidences.gather(1, labels[:, None]).squeeze(1)
        except BudgetExceeded:
            complete = False
            scores = torch.sigmoid(-margins[-1]) if history else latents.new_full((len(latents),), 0.5)
        return Inversion(latents, images, scores, margins, complete)


def invert(
    generator: Generator,
    target_logits: Logits,
    labels: Tensor,
    latents: Tensor,
    draw: Draws,
    augmentation: Augmentation,
    steps: int = 600,
    learning_rate: float = 0.1,
    *,
    autocast: Context = nullcontext,
    spend: Spend = nullcontext,
) -> Inversion:
    """Search latents whose images the target assigns to ``labels`` (B,) under random views; see `Search`.

    latents: (B, d) ~ N(0, I), the start. The images of the last step are the result, as in the authors'
    code.
    """
    search = Search(generator, target_logits, augmentation, learning_rate, autocast, spend)
    return search.run(latents, labels, draw, steps)
