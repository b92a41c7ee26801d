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

Generator = Callable[[Tensor, Tensor], Tensor]
Logits = Callable[[Tensor], Tensor]
Draws = Callable[[int], Tensor]

BLOCK = 50
"""Steps whose random numbers are drawn at once; part of the result, as it orders the draws."""
RECORD_EVERY = 25
"""Steps between two entries of the history."""
Context = Callable[[], AbstractContextManager[Any]]
Spend = Callable[[int], AbstractContextManager[Any]]


def view_draws(sources: Sequence[UniformSource], restarts: int, views: int, augmentation: Augmentation) -> Draws:
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
    """What the search found: latents (B, d), images (B, C, H, W) in [0, 1], and how it went.

    confidences (B,): the target's probability of the label for the unchanged image; 0 when the budget
    left no query for it. history: the margins (B,), summed over views, every few steps, on the CPU.
    complete: False when the budget ended the search early.
    """

    latents: Tensor
    images: Tensor
    confidences: Tensor
    history: tuple[Tensor, ...]
    complete: bool


@dataclass(frozen=True)
class LatentSearch:
    """The search of section 3.4: latents whose images the target assigns to a label under random views.

    Losses are summed over rows and Adam is elementwise, so rows do not influence each other.
    ``spend(passes)`` is the ledger's context for a batch of ``passes`` rows per latent.
    """

    generator: Generator
    target_logits: Logits
    augmentation: Augmentation
    steps: int = 600
    learning_rate: float = 0.1
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    spend: Callable[[int], AbstractContextManager[Any]] = lambda passes: nullcontext()

    def run(self, latents: Tensor, labels: Tensor, draw: Draws) -> Inversion:
        """Search from latents (B, d) ~ N(0, I) for labels (B,): one row per case and restart.

        ``draw(n)`` is asked for the random numbers of ``BLOCK`` steps at a time, however many steps there are.
        A search that the budget stops gives back the state that it has reached.
        """
        latents = latents.clone().requires_grad_(True)
        adam = torch.optim.Adam([latents], self.learning_rate)
        history: list[Tensor] = []
        complete = True
        try:
            for step in range(self.steps):
                if step % BLOCK == 0:
                    numbers = draw(BLOCK)
                losses = self._step(adam, latents, labels, numbers[step % BLOCK])
                if step % RECORD_EVERY == 0 or step == self.steps - 1:
                    history.append(losses)
        except BudgetExceeded:
            complete = False
        return self._finish(latents.detach(), labels, history, complete)

    def _step(self, adam: torch.optim.Adam, latents: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        with self.spend(len(numbers)):
            losses = self.losses(latents, labels, numbers)
            (latents.grad,) = torch.autograd.grad(losses.sum(), latents)
        adam.step()
        return losses.detach()

    def losses(self, latents: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        """Return the margins (B,) of one step, summed over the views in ``numbers`` (views, B, P): one target batch."""
        views = len(numbers)
        with self.autocast():
            images = self.generator(latents, labels)
            seen = self.augmentation.apply(images.repeat(views, 1, 1, 1), numbers.flatten(0, 1))
            logits = self.target_logits(seen)
        return max_margin(logits, labels.repeat(views)).view(views, -1).sum(0)

    @torch.no_grad()
    def _finish(self, latents: Tensor, labels: Tensor, history: list[Tensor], complete: bool) -> Inversion:
        images = self.generator(latents, labels)
        confidences = torch.zeros(len(labels), device=labels.device)
        try:
            with self.spend(1):
                logits = self.target_logits(images).float()
            confidences = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        except BudgetExceeded:
            complete = False
        return Inversion(latents, images, confidences, tuple(losses.cpu() for losses in history), complete)
