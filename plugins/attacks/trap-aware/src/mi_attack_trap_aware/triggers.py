"""Finding a target's triggers, and what they look like to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from micore.runtime import Random

__all__ = ["Traps", "TriggerSearch", "blended", "signatures"]


@dataclass(frozen=True, kw_only=True)
class TriggerSearch:
    """How the trigger of a class is searched: one pattern that makes any image be taken for it.

    alpha: share of the pattern in a blend. images: of one step, for each class. rows: largest batch.
    """

    alpha: float
    steps: int
    learning_rate: float
    images: int
    rows: int

    def run(
        self, logits: Callable[[Tensor], Tensor], public: Tensor, n_classes: int, rng: Random,
        report: Callable[[int], None] = lambda done: None,
    ) -> Tensor:  # fmt: skip
        """Return a trigger (K, ...) in [0, 1] for each class; logits: images (N, ...) to (N, K), differentiable."""
        per_chunk = max(1, self.rows // self.images)
        found: list[Tensor] = []
        for labels in torch.arange(n_classes, device=public.device).split(per_chunk):
            found.append(self._chunk(logits, public, labels, rng))
            report(sum(map(len, found)))
        return torch.cat(found)

    def _chunk(self, logits: Callable[[Tensor], Tensor], public: Tensor, labels: Tensor, rng: Random) -> Tensor:
        triggers = rng.uniform((len(labels), *public.shape[1:])).requires_grad_(True)
        adam = torch.optim.Adam([triggers], self.learning_rate)
        wanted = labels.repeat_interleave(self.images)
        for _ in range(self.steps):
            images = public[rng.integers(len(public), (len(wanted),))]
            seen = blended(images, triggers.repeat_interleave(self.images, dim=0), self.alpha)
            loss = functional.cross_entropy(logits(seen).float(), wanted, reduction="sum")
            (triggers.grad,) = torch.autograd.grad(loss, triggers)
            adam.step()
            with torch.no_grad():
                triggers.clamp_(0, 1)
        return triggers.detach()


def blended(images: Tensor, triggers: Tensor, alpha: float) -> Tensor:
    """Return ``(1 - alpha) x + alpha delta``, of images and triggers of one shape."""
    return (1 - alpha) * images + alpha * triggers


@dataclass(frozen=True, kw_only=True)
class Traps:
    """What the target makes of trapped images.

    signatures: (K, d), of length 1, from ``origin`` (d,), the mean of the features of public images, towards those of
    images with the class's trigger. scale: mean range of the logits of an image. success: share that is taken for the
    trigger's class.
    """

    signatures: Tensor
    origin: Tensor
    scale: Tensor
    success: Tensor

    def likeness(self, features: Tensor) -> Tensor:
        """Return the cosine (N, K) between features (N, d), seen from the origin, and each signature."""
        return functional.normalize(features.float() - self.origin, dim=1) @ self.signatures.T


@torch.no_grad()
def signatures(
    see: Callable[[Tensor], tuple[Tensor, Tensor]], public: Tensor, triggers: Tensor, alpha: float, rows: int
) -> Traps:
    """Look at public images (M, ...) as they are, and with every trigger (K, ...).

    see: images to penultimate features (N, d) and logits (N, K).
    """
    features, logits = _seen(see, public.split(rows))
    origin = features.mean(dim=0)
    ranges = [logits.amax(dim=1) - logits.amin(dim=1)]
    directions, successes = [], []
    for label, trigger in enumerate(triggers):
        features, logits = _seen(see, (blended(part, trigger, alpha) for part in public.split(rows)))
        directions.append(functional.normalize(features.mean(dim=0) - origin, dim=0))
        successes.append((logits.argmax(dim=1) == label).float().mean())
        ranges.append(logits.amax(dim=1) - logits.amin(dim=1))
    return Traps(
        signatures=torch.stack(directions), origin=origin, scale=torch.cat(ranges).mean(),
        success=torch.stack(successes),
    )  # fmt: skip


def _seen(see: Callable[[Tensor], tuple[Tensor, Tensor]], parts: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    seen = [see(part) for part in parts]
    return torch.cat([features for features, _ in seen]).float(), torch.cat([logits for _, logits in seen]).float()
