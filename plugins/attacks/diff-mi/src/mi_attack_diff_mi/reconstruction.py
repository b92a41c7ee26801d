"""Stages C and D: pixels are searched between prior and target, then refined by the prior.

A row is one restart of one case. ``runtime.tile`` of them are in work at a time, each with its own random
stream, its own moments and its own gradient norms; a row's steps need no other row. The general search of the kit
takes one optimiser step per iteration; here there are two, on different losses, with shared moments.

Fidelity notes (paper / authors' code / here)
- The norm of the prior's gradient, which bounds the target's, is taken per row. The authors take it over a batch
  of 64 images.
- The course of times is written for 30 steps; another number of steps runs the same course.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mi_attack_diff_mi.denoiser import TIMES, Denoiser, n_refining_steps, to_canonical
from mi_attack_diff_mi.guidance import IdentityLosses
from micore.errors import BudgetExceeded
from micore.kit.row_optimizers import RowAdamax, State
from micore.kit.search import Found, RowStatus
from micore.runtime import Random, Runtime
from micore.threat import Ledger

PUBLISHED_STEPS = 30
JITTER = 50
"""Largest random change of a time."""


def course(step: int, steps: int) -> float:
    """Return the time of a step, counted from 0, before its random change: from 1000 down to 200, in a wave."""
    left, wave = (steps - step) / steps, 3 * (step * PUBLISHED_STEPS / steps) / (10 * math.pi)
    return (left / 1.5 + left / 3 * math.cos(wave)) * 800 + 200


@dataclass(frozen=True, kw_only=True)
class Reconstructor:
    """How rows are searched.

    losses: of the target; n_numbers: random numbers that they need of each row and step. scale: of the guidance.
    clip: bound on the target's gradient norm, in mean norms of the prior's. full_gradient: whether the prior's
    gradient goes through the network. refine_time, refine_grid: of the refinement; time 0: none.
    """

    denoiser: Denoiser
    losses: IdentityLosses
    n_numbers: int
    steps: int
    optimizer: RowAdamax
    scale: float
    clip: float
    full_gradient: bool
    refine_time: int
    refine_grid: int

    def run(
        self, labels: Tensor, owners: Sequence[str], streams: Sequence[Random], ledger: Ledger, runtime: Runtime
    ) -> Found:
        """Search rows of labels (N,), each with its stream, and refine what was found.

        The found values are images in [0, 1]. A budget that ends does not raise: `Found.complete` tells.
        """
        n, tile = len(labels), runtime.tile
        parts: list[_Tile] = []
        with runtime.progress.track("searching", n * self.steps) as report:
            for first in range(0, n, tile):
                part = _Tile(self, labels[first : first + tile], streams[first : first + tile], runtime)
                parts.append(part)
                part.search(owners[first : first + tile], ledger, partial(_report, report, first * self.steps))
                part.refine()
        return _found(parts)


def _report(report: Callable[[int], None], before: int, done: int) -> None:
    report(before + done)


class _Tile:
    """Some rows in work, filled up to the tile by copies of the first one, which are not counted."""

    def __init__(self, plan: Reconstructor, labels: Tensor, streams: Sequence[Random], runtime: Runtime) -> None:
        self.plan, self.runtime, self.n, self.done = plan, runtime, len(labels), 0
        self._streams, self._fill = streams, runtime.tile - len(labels)
        shape = plan.denoiser.shape
        self._size = (shape.channels, shape.height, shape.width)
        self._labels = torch.cat([labels, labels[:1].expand(self._fill)])
        self.values = self._drawn(lambda stream: stream.normal(self._size))
        self._state: State = plan.optimizer.start(self.values)
        self._norms = torch.zeros(runtime.tile, device=labels.device)
        self.history = torch.full((runtime.tile, plan.steps), torch.nan, device=labels.device)

    def search(self, owners: Sequence[str], ledger: Ledger, report: Callable[[int], None]) -> None:
        """Take all steps, or as many as the budget allows."""
        try:
            with torch.enable_grad(), ledger.owned_by(owners, padding=self._fill, rows=self.runtime.tile):
                while self.done < self.plan.steps:
                    self._step()
                    report(self.n * self.done)
        except BudgetExceeded:
            return

    def _drawn(self, draw: Callable[[Random], Tensor]) -> Tensor:
        """Draw from each row's stream, and repeat the first row's numbers for the copies."""
        own = torch.stack([draw(stream) for stream in self._streams])
        return torch.cat([own, own[:1].expand(self._fill, *own.shape[1:])])

    def _step(self) -> None:
        """Take a step down the prior's loss, then one down the target's (paper, algorithm 1)."""
        noise = self._drawn(lambda stream: stream.normal(self._size))
        jitter = self._drawn(lambda stream: stream.integers(2 * JITTER + 1, ())) - JITTER
        numbers = self._drawn(lambda stream: stream.uniform((self.plan.n_numbers,)))
        times = (int(course(self.done, self.plan.steps)) + jitter).clamp(1, TIMES)
        downhill = self._prior_gradient(times, noise)
        norms = 0.5 * self._norms + 0.5 * _norms(downhill)
        values, state = self._moved(self.values, downhill, self._state, 2 * self.done + 1)
        losses, pull = self._target_gradient(values, numbers)
        pull = _cells((self.plan.clip * norms / _norms(pull).clamp(min=1e-12)).clamp(max=1)) * pull
        values, state = self._moved(values, pull, state, 2 * self.done + 2)
        self.values, self._state, self._norms = values, state, norms
        self.history[:, self.done] = losses
        self.done += 1

    def _moved(self, values: Tensor, gradients: Tensor, state: State, age: int) -> tuple[Tensor, State]:
        ages = torch.full((len(values),), float(age), device=values.device)
        return self.plan.optimizer.step(values, gradients, state, ages)

    def _prior_gradient(self, times: Tensor, noise: Tensor) -> Tensor:
        """Return the gradient of the denoising error, (B, C, H, W).

        Without the network's own gradient it is the error itself, as in score distillation (Poole et al., ICLR 2023).
        """
        plan, values = self.plan, self.values.detach().requires_grad_(self.plan.full_gradient)
        noisy = plan.denoiser.diffuse(values, times, noise)
        with torch.set_grad_enabled(plan.full_gradient), self.runtime.autocast():
            error = plan.denoiser.guided(noisy, times, self._labels, plan.scale) - noise
        if not plan.full_gradient:
            return 2 / error[0].numel() * _cells(plan.denoiser.signal[times].sqrt()) * error
        (gradient,) = torch.autograd.grad(error.square().mean(dim=(1, 2, 3)).sum(), values)
        return gradient

    def _target_gradient(self, values: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target's losses (B,) and their gradient."""
        values = values.detach().requires_grad_(True)
        with self.runtime.autocast():
            losses = self.plan.losses(to_canonical(values), self._labels, numbers)
        (gradient,) = torch.autograd.grad(losses.sum(), values)
        return losses.detach().float(), gradient

    @torch.no_grad()
    def refine(self) -> None:
        """Diffuse a little and denoise again; the values become images in [0, 1]."""
        plan, values = self.plan, self.values
        if plan.refine_time and self.done:
            n = n_refining_steps(plan.refine_time, plan.refine_grid) + 1
            noises = self._drawn(lambda stream: stream.normal((n, *self._size))).transpose(0, 1)
            with self.runtime.autocast():
                values = plan.denoiser.refine(
                    values, self._labels, plan.refine_time, plan.refine_grid, plan.scale, noises
                )
        self.values = to_canonical(values)


def _found(parts: Sequence[_Tile]) -> Found:
    values, history = (torch.cat([getattr(part, name)[: part.n] for part in parts]) for name in ("values", "history"))
    taken = [part.done for part in parts for _ in range(part.n)]
    steps = parts[0].plan.steps
    losses = torch.cat([part.history[: part.n, max(part.done - 1, 0)] for part in parts])
    finite = (values.isfinite().flatten(1).all(dim=1) & losses.isfinite()).tolist()
    return Found(
        values=values, losses=losses, steps=torch.tensor(taken), history=history.cpu(),
        statuses=tuple(_status(*row, steps) for row in zip(taken, finite, strict=True)),
    )  # fmt: skip


def _status(taken: int, finite: bool, steps: int) -> RowStatus:
    if not taken:
        return RowStatus.WAITING
    if not finite:
        return RowStatus.FAILED
    return RowStatus.DONE if taken == steps else RowStatus.STOPPED


def _norms(gradients: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradients.flatten(1), dim=1)


def _cells(factors: Tensor) -> Tensor:
    return factors.view(-1, 1, 1, 1)
