"""Where the search of each class begins: random latents that the target happens to assign to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from micore.kit.projections import clamp_box
from micore.runtime import Runtime

__all__ = ["StartSettings", "Starts", "draw_starts"]


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """How starts are looked for: batches of ``batch`` latents, at most ``batches``, until each class has ``wanted``."""

    wanted: int
    batch: int
    batches: int
    box: float


@dataclass(frozen=True, kw_only=True)
class Starts:
    """The first latents of each class.

    latents (K, wanted, d): of which the first ``counts`` (K,) are there; drawn: how many latents were tried.
    """

    latents: Tensor
    counts: Tensor
    drawn: int

    def add(self, latents: Tensor, labels: Tensor) -> Starts:
        """Return these starts with latents (B, d), in their order, added to the classes of their labels (B,)."""
        n_classes, wanted, _ = self.latents.shape
        members = functional.one_hot(labels, n_classes)
        rank = (members.cumsum(dim=0) * members).sum(dim=1) - 1
        place = self.counts[labels] + rank
        fits = place < wanted
        grown = self.latents.index_put((labels[fits], place[fits]), latents[fits])
        counts = (self.counts + members.sum(dim=0)).clamp(max=wanted)
        return Starts(latents=grown, counts=counts, drawn=self.drawn + len(latents))

    def of(self, labels: Tensor, n: int) -> Tensor:
        """Return n starts of each label, (C, n, d); a class with fewer repeats them, and must have one."""
        places = torch.arange(n, device=labels.device)[None] % self.counts[labels][:, None]
        return self.latents[labels[:, None], places]

    @property
    def complete(self) -> bool:
        """Whether each class has all its starts; waits for the device."""
        return bool((self.counts == self.latents.shape[1]).all())

    def state(self) -> dict[str, Any]:
        """Return plain data."""
        return {"latents": self.latents, "counts": self.counts, "drawn": self.drawn}

    @classmethod
    def restore(cls, state: Mapping[str, Any], runtime: Runtime) -> Starts:
        """Return stored starts, on the run's device."""
        latents, counts = (state[name].to(runtime.device) for name in ("latents", "counts"))
        return cls(latents=latents, counts=counts, drawn=int(state["drawn"]))


def draw_starts(
    ask: Callable[[Tensor], Tensor], n_classes: int, latent_dim: int, settings: StartSettings, runtime: Runtime
) -> Starts:
    """Draw latents N(0, I), clipped to the box, and ask for their labels until every class has its starts.

    ask: latents (B, d) to the target's labels (B,). Resumes from ``runtime.checkpoints`` at the next batch.
    """
    saved = runtime.checkpoints.load()
    starts = Starts.restore(saved, runtime) if saved else _none(n_classes, latent_dim, settings, runtime)
    first = starts.drawn // settings.batch
    with runtime.progress.track("looking for starts", settings.batches) as report:
        for number in range(first, settings.batches):
            if starts.complete:
                break
            latents = runtime.rng("brep-mi", "starts", number).normal((settings.batch, latent_dim))
            latents = clamp_box(latents, -settings.box, settings.box)
            starts = starts.add(latents, ask(latents))
            report(number + 1)
            runtime.checkpoints.offer(starts.state)
    return starts


def _none(n_classes: int, latent_dim: int, settings: StartSettings, runtime: Runtime) -> Starts:
    latents = torch.zeros(n_classes, settings.wanted, latent_dim, device=runtime.device)
    return Starts(latents=latents, counts=torch.zeros(n_classes, dtype=torch.int64, device=runtime.device), drawn=0)
