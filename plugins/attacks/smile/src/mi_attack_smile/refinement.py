"""Refinement without gradients: one CMA-ES for each row, all of which the target answers together.

The evolution strategies are pycma's (Hansen, Akimoto, Baudis: "CMA-ES/pycma"). Each has its own random numbers and
works on the CPU in float64; the images of all populations pass generator and target in tiles. A row's strategy sees
nothing of the others.

Points are places in P space (`micore.kit.projections`), as offsets from where the row begins, in units of the prior's
deviations. What leaves the box is put back before it is shown, and the strategy is told the loss of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cma  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import Tensor

from micore.kit.evolution import MemberLosses, ask_members, spaced
from micore.kit.projections import Box, from_p_space, to_p_space
from micore.kit.search import Found, Rows, RowStatus, Stand
from micore.runtime import Random, Runtime
from micore.threat import Ledger

__all__ = ["LEAST", "Refinement", "surprise"]

LEAST = 1e-12
"""Probabilities below this count as this, so that answers rounded to 0 can be compared."""
WORST = 1e6
"""What a strategy is told of an answer that is not finite."""


def surprise(answers: Tensor, labels: Tensor) -> Tensor:
    """Return minus the logarithm of the labels' scores (B,), of answers (B, K)."""
    return -answers.gather(1, labels[:, None])[:, 0].clamp_min(LEAST).log()


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How codes are refined.

    generations of ``population`` points each; step: the first deviation, in units of the prior's; box: of codes;
    spread: the prior's deviations in P space (w_dim,). stands: so many earlier stands are kept in ``Found.course``,
    ever further apart.
    """

    score: MemberLosses
    generations: int
    population: int
    step: float
    box: Box
    spread: Tensor
    stands: int = 0

    def run(self, rows: Rows, streams: Sequence[Random], ledger: Ledger, runtime: Runtime) -> Found:
        """Refine all rows (N, w_dim); what the target sees is charged to their cases.

        streams: random numbers on the CPU, one stream for each row. Found: the best codes seen, which may be those that
        a row begins with, and their losses; history (N, generations + 1), the best loss so far. A row fails when the
        target never gave it a finite answer. A budget that ends does not raise: `Found.complete` tells.
        """
        work, kept = _Work(self, rows, streams), spaced(self.generations, self.stands)
        with runtime.progress.track("refining", self.generations + 1) as report:
            complete = work.look(rows.starts[:, None], ledger, runtime)
            for generation in range(self.generations):
                if not complete:
                    break
                if generation in kept:
                    work.remember(1 + generation * self.population)
                report(generation + 1)
                complete = work.advance(ledger, runtime)
        return work.found(complete)


class _Work:
    """The strategies of all rows, and the best codes that each has seen."""

    def __init__(self, refinement: Refinement, rows: Rows, streams: Sequence[Random]) -> None:
        self._refinement, self._rows = refinement, rows
        self._origins = to_p_space(rows.starts)
        self._strategies = [_strategy(rows.starts.shape[1], refinement, stream) for stream in streams]
        n, device = len(rows.owners), rows.starts.device
        self._best, self._best_losses = rows.starts.clone(), torch.full((n,), torch.inf, device=device)
        self._seen = torch.zeros(n, dtype=torch.bool, device=device)
        self._trace: list[Tensor] = []
        self._course: list[Stand] = []

    def remember(self, asked: int) -> None:
        """Keep where the search stands, after so many queries of each row."""
        queries = torch.full_like(self._best_losses, asked, dtype=torch.int64)
        self._course.append(Stand(values=self._best, losses=self._best_losses, queries=queries))

    def advance(self, ledger: Ledger, runtime: Runtime) -> bool:
        """Let every strategy propose a population and learn from the answers; return whether the budget was enough."""
        points = [np.asarray(strategy.ask()) for strategy in self._strategies]
        offsets = torch.from_numpy(np.stack(points)).to(self._origins.device, self._origins.dtype)
        members = from_p_space(self._origins[:, None] + self._refinement.spread * offsets)
        complete = self.look(self._refinement.box.clamp(members), ledger, runtime)
        if complete:
            told = self._losses.nan_to_num(nan=WORST, posinf=WORST, neginf=-WORST).double().cpu().numpy()
            for strategy, population, losses in zip(self._strategies, points, told, strict=True):
                strategy.tell(list(population), losses.tolist())
        return complete

    def look(self, members: Tensor, ledger: Ledger, runtime: Runtime) -> bool:
        """Ask about codes (N, M, w_dim) and keep the best; return whether the budget was enough."""
        self._losses, complete = ask_members(self._refinement.score, members, self._rows, ledger, runtime)
        self._seen |= ~self._losses.isnan().all(dim=1)
        values, places = self._losses.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).min(dim=1)
        found = members[torch.arange(len(members), device=members.device), places]
        better = values < self._best_losses
        self._best = torch.where(better[:, None], found, self._best)
        self._best_losses = torch.where(better, values, self._best_losses)
        self._trace.append(self._best_losses)
        return complete

    def found(self, complete: bool) -> Found:
        """Return the result."""
        flags = torch.stack([self._seen, self._best_losses.isfinite()]).tolist()
        return Found(
            values=self._best, losses=self._best_losses,
            steps=torch.full((len(self._best),), len(self._trace) - 1, device=self._best.device),
            statuses=[_status(complete, *both) for both in zip(*flags, strict=True)],
            history=torch.stack(self._trace, dim=1).cpu(), course=tuple(self._course),
        )  # fmt: skip


def _status(complete: bool, seen: bool, finite: bool) -> RowStatus:
    if not seen:
        return RowStatus.WAITING
    if not finite:
        return RowStatus.FAILED
    return RowStatus.DONE if complete else RowStatus.STOPPED


def _strategy(size: int, refinement: Refinement, stream: Random) -> cma.CMAEvolutionStrategy:
    """Make a strategy that draws from this stream alone and prints nothing; its own rules to stop are not asked."""

    def normal(*shape: int) -> np.ndarray:
        return stream.normal(shape).double().numpy()

    options = {"popsize": refinement.population, "randn": normal, "seed": math.nan, "verbose": -9}
    return cma.CMAEvolutionStrategy(size * [0.0], refinement.step, options)
