"""A bank of candidates: many samples of a prior, rendered once, with what the target says of them.

Attacks on a StyleGAN begin at the candidates that the target is surest of. The bank is made once for all classes;
PPA, MIRROR and IF-GMI each keep one with their preparation.

Sources: Struppek et al., "Plug & Play Attacks" (ICML 2022), section 3.2; An et al., "MIRROR" (NDSS 2022),
section III.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from micore.contracts import Case
from micore.kit.selection import Selection, top_k_per_class
from micore.runtime import Random, Runtime
from micore.target import Target

__all__ = ["BankSettings", "CandidateBank", "StylePrior", "bare_scores", "draw_styles", "fill_bank"]

Scores = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to class probabilities (B, K); counts what it asks."""


class StylePrior(Protocol):
    """What a bank needs of a prior with style codes, such as `mi_image.stylegan_prior.StyleGanPrior`."""

    @property
    def latent_dim(self) -> int:
        """Length of a latent z."""

    @property
    def n_classes(self) -> int:
        """Classes of a conditional generator, 0 for none."""

    def map(
        self, latents: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """Return style codes (B, num_ws, w_dim)."""

    def render(self, ws: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [0, 1] of codes (B, w_dim) or (B, num_ws, w_dim)."""


@dataclass(frozen=True, kw_only=True)
class BankSettings:
    """How candidates are drawn and looked at.

    size: candidates. psi: truncation, of the first ``cutoff`` layers or of all (None). mirror: whether the target
    also sees each mirror image, and the two answers are averaged.
    """

    size: int
    psi: float = 1.0
    cutoff: int | None = None
    mirror: bool = False

    @property
    def views(self) -> int:
        """Queries of one candidate."""
        return 1 + self.mirror


@dataclass(frozen=True, kw_only=True)
class CandidateBank:
    """Candidates and what the target said of them.

    styles (N, w_dim): the code of the first layer, which a search over a single code begins with.
    scores (N, K): probabilities, averaged over the views.
    """

    styles: Tensor
    scores: Tensor

    def select(self, k: int, classes: Tensor | None = None) -> Selection:
        """Return the k distinct candidates that each class scores highest, (C, k), best first."""
        return top_k_per_class(self.scores, k, classes)

    def starts(self, cases: Sequence[Case], k: int) -> Tensor:
        """Return the styles (C, k, w_dim) of the k best candidates of each case's class."""
        labels = torch.tensor([case.label for case in cases], device=self.scores.device)
        return self.styles[self.select(k, labels).indices]

    def state(self) -> dict[str, Tensor]:
        """Return the bank as plain data."""
        return {"styles": self.styles, "scores": self.scores}

    @classmethod
    def restore(cls, state: Mapping[str, Any], runtime: Runtime) -> CandidateBank:
        """Return a stored bank, on the run's device."""
        return cls(styles=state["styles"].to(runtime.device), scores=state["scores"].to(runtime.device))


def draw_styles(prior: StylePrior, latents: Tensor, labels: Tensor | None, settings: BankSettings) -> Tensor:
    """Return truncated codes (B, num_ws, w_dim)."""
    return prior.map(latents, labels, psi=settings.psi, cutoff=settings.cutoff)


def draw_labels(prior: StylePrior, n: int, rng: Random) -> Tensor | None:
    """Draw the classes of a conditional prior uniformly, so that none is aimed at; None for any other prior."""
    return rng.integers(prior.n_classes, (n,)) if prior.n_classes else None


@torch.no_grad()
def fill_bank(
    prior: StylePrior, scores: Scores, settings: BankSettings, runtime: Runtime,
    image: Callable[[Tensor], Tensor] = lambda images: images,
) -> CandidateBank:  # fmt: skip
    """Draw, render and score the candidates, ``runtime.tile`` at a time; a killed work goes on from its checkpoint.

    image: what becomes of a rendered picture before the target sees it (a central part of it).
    """
    latents = runtime.rng("bank", "latents").normal((settings.size, prior.latent_dim))
    labels = draw_labels(prior, settings.size, runtime.rng("bank", "labels"))
    parts = _Parts(runtime.checkpoints.load(), runtime)
    with runtime.progress.track("scoring candidates", settings.size) as report:
        while parts.done < settings.size:
            rows = slice(parts.done, parts.done + runtime.tile)
            ws = draw_styles(prior, latents[rows], None if labels is None else labels[rows], settings)
            parts.add(ws[:, 0], _averaged(scores, image(prior.render(ws)), settings.mirror))
            report(parts.done)
            runtime.checkpoints.offer(parts.state)
    return parts.bank()


class _Parts:
    """The candidates scored so far, and how many."""

    def __init__(self, saved: Mapping[str, Any] | None, runtime: Runtime) -> None:
        earlier = [CandidateBank.restore(saved, runtime)] if saved else []
        self._parts = earlier
        self.done = sum(len(part.styles) for part in earlier)

    def add(self, styles: Tensor, scores: Tensor) -> None:
        self._parts.append(CandidateBank(styles=styles.clone(), scores=scores))
        self.done += len(styles)

    def bank(self) -> CandidateBank:
        whole = CandidateBank(
            styles=torch.cat([part.styles for part in self._parts]),
            scores=torch.cat([part.scores for part in self._parts]),
        )
        self._parts = [whole]
        return whole

    def state(self) -> dict[str, Tensor]:
        return self.bank().state()


def _averaged(scores: Scores, images: Tensor, mirror: bool) -> Tensor:
    """Return the mean answer (B, K) to the views, which the target sees in one batch."""
    if not mirror:
        return scores(images)
    both: Tensor = scores(torch.cat([images, images.flip(3)])).unflatten(0, (2, -1))
    return both.mean(dim=0)


def bare_scores(target: Target) -> Scores:
    """Return the target's own probabilities: who sees the network need not listen to an output defense.

    Raises: AccessDenied unless the run grants white-box access.
    """
    module = target.module

    def answer(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits.float().softmax(dim=1)

    return answer
