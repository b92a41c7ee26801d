"""What GMI, KED-MI and LOMMA share: a search for latents, points or Gaussians, that look real and like a class.

Sources: Zhang et al., "The Secret Revealer" (GMI, CVPR 2020), equation 4; Chen et al., "Knowledge-Enriched
Distributional Model Inversion Attacks" (KED-MI, ICCV 2021), section 3.2; Nguyen et al., "Re-thinking Model
Inversion Attacks" (LOMMA, CVPR 2023), which changes the identity loss only. Each minimises
realism + 100 identity over the latents of its generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mi_image.dcgan import KedCritic
from mi_image.ked_training import lone_logits
from micore.contracts import Case, Reconstruction
from micore.kit.case_rows import confidences, make_rows, normal_draws, reconstructions, standard_normal, tiled
from micore.kit.latent_objective import LatentObjective, Realism
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import NesterovMomentum, RowAdam
from micore.kit.search import Found, RowSearch
from micore.runtime import Runtime
from micore.target import Target

__all__ = ["GaussianSearch", "PointSearch", "evidence_loss", "reparameterised"]


def evidence_loss(critic: KedCritic) -> Realism:
    """Return softplus(LSE l(x)) - LSE l(x), which is -log D(x) of a critic with K logits (KED-MI's prior loss)."""

    def loss(images: Tensor) -> Tensor:
        evidence = lone_logits(critic, images).logsumexp(dim=1)
        return functional.softplus(evidence) - evidence

    return loss


@dataclass(frozen=True, kw_only=True)
class PointSearch:
    """GMI's search: points, moved by its momentum update, within a box.

    learning_rate: of the summed loss (the authors' code takes the mean over the batch). box: largest absolute value
    of a latent after each step; None: any.
    """

    latent_dim: int
    restarts: int
    steps: int
    learning_rate: float
    momentum: float = 0.9
    box: float | None = 1.0

    def run(
        self, objective: LatentObjective, target: Target, cases: Sequence[Case], runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search all restarts of all cases; yield them best first by the target's confidence.

        Raises: BudgetExceeded, CaseFailed (see `micore.kit.case_rows.reconstructions`).
        """
        rows = make_rows(cases, standard_normal(cases, (self.restarts, self.latent_dim), runtime))
        optimizer = NesterovMomentum(learning_rate=self.learning_rate, momentum=self.momentum)
        search = RowSearch(
            objective=objective, optimizer=optimizer, steps=self.steps,
            constraint=lambda values, _: _clipped(values, self.box),
        )  # fmt: skip
        found = search.run(rows, target.ledger, runtime)
        yield from _judged(objective, target, cases, found, found.values, rows.constants["labels"], runtime)


@dataclass(frozen=True, kw_only=True)
class GaussianSearch:
    """KED-MI's search: diagonal Gaussians over the latents, moved by Adam on one draw per step.

    A row is (2, latent_dim): mean, which starts at 0, and log variance, which starts at 1. restarts: Gaussians for each
    case; draws: reconstructions from each of them. box: largest absolute value of a drawn latent, in the search and in
    the reconstructions; None: any. patience: steps without a lower loss after which a Gaussian retires; None: never.
    """

    latent_dim: int
    steps: int
    learning_rate: float
    restarts: int = 1
    draws: int = 5
    box: float | None = None
    patience: int | None = None

    def run(
        self, objective: LatentObjective, target: Target, cases: Sequence[Case], runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the Gaussians of all cases; yield draws from them, best first by the target's confidence.

        Raises: BudgetExceeded, CaseFailed (see `micore.kit.case_rows.reconstructions`).
        """

        def drawn(values: Tensor, constants: Mapping[str, Tensor], noise: Tensor) -> Tensor:
            return objective(reparameterised(values, noise, self.box), constants, noise)

        rows = make_rows(
            cases, self._starts(cases, runtime), normal_draws(cases, self.restarts, self.latent_dim, runtime)
        )
        search = RowSearch(
            objective=drawn, optimizer=RowAdam(learning_rate=self.learning_rate), steps=self.steps,
            patience=self.patience,
        )  # fmt: skip
        found = search.run(rows, target.ledger, runtime)
        noise = standard_normal(cases, (self.restarts, self.draws, self.latent_dim), runtime, "draws").flatten(0, 2)
        found = _repeated(found, self.draws)
        latents = reparameterised(found.values, noise, self.box)
        labels = rows.constants["labels"].repeat_interleave(self.draws)
        yield from _judged(objective, target, cases, found, latents, labels, runtime)

    def _starts(self, cases: Sequence[Case], runtime: Runtime) -> Tensor:
        shape = (len(cases), self.restarts, self.latent_dim)
        return torch.stack([torch.zeros(shape), torch.ones(shape)], dim=2).to(runtime.device)


def reparameterised(values: Tensor, noise: Tensor, box: float | None = None) -> Tensor:
    """Return mean + exp(log variance / 2) x noise, (B, d), of values (B, 2, d) and noise (B, d), within the box."""
    mean, log_variance = values.unbind(1)
    return _clipped(mean + (log_variance / 2).exp() * noise, box)


def _clipped(latents: Tensor, box: float | None) -> Tensor:
    return latents if box is None else clamp_box(latents, -box, box)


def _repeated(found: Found, times: int) -> Found:
    """Return every row so many times, as if each had been searched."""
    return replace(
        found,
        values=found.values.repeat_interleave(times, dim=0),
        losses=found.losses.repeat_interleave(times),
        steps=found.steps.repeat_interleave(times),
        statuses=[status for status in found.statuses for _ in range(times)],
        history=found.history.repeat_interleave(times, dim=0),
    )


def _judged(
    objective: LatentObjective,
    target: Target,
    cases: Sequence[Case],
    found: Found,
    latents: Tensor,
    labels: Tensor,
    runtime: Runtime,
) -> Iterator[Reconstruction]:
    """Render the latents (N, d), laid out as ``found``, ask the target about them once and yield them by case."""
    images = tiled(objective.generator, runtime.tile, latents)
    owners = [case.id for case in cases for _ in range(len(latents) // len(cases))]
    scores, scored = confidences(target, images, labels, owners, runtime)
    yield from reconstructions(cases, found, images, scores, latents=latents, scored=scored)
