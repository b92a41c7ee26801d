"""The search of BREP-MI: a point moves away from the boundary of its class until ever larger spheres fit in.

Source: Kahla, Chen, Just, Jia: "Label-Only Model Inversion Attacks via Boundary Repulsion", CVPR 2022, algorithm 1;
the authors' code where it says more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from micore.errors import BudgetExceeded
from micore.kit.evolution import spaced
from micore.kit.projections import clamp_box
from micore.kit.search import Found, Rows, RowStatus, Stand
from micore.runtime import Runtime

__all__ = ["Ask", "BoundarySearch", "Repulsion"]

Ask = Callable[[Tensor, Sequence[str]], Tensor]
"""Latents (N, d) and the case that each belongs to -> the target's labels of their images (N,), counted."""

BLOCK = 8
"""Rounds whose directions are drawn at once; part of the result, as it orders the draws."""
LOOK_EVERY = 25
"""Rounds between two entries of the history."""


@dataclass(frozen=True, kw_only=True)
class Repulsion:
    """The rules by which a point moves; the defaults are the authors' code.

    radius: of the first sphere; growth: its factor when the class fills the sphere, which it does when inside minus
    outside points exceed ``expand_share`` of all. step_share: length of a step, in radii, at most ``longest_step``.
    box: largest absolute value of a latent. outward_only: whether points inside the class are left out of the
    direction.
    """

    radius: float = 2.0
    growth: float = 1.3
    expand_share: float = 0.75
    step_share: float = 1 / 3
    longest_step: float = 3.0
    box: float = 1.5
    outward_only: bool = True

    def sphere(self, normals: Tensor, radii: Tensor) -> Tensor:
        """Return offsets (B, N, d) of length ``radii`` (B,) in the directions of normals (B, N, d)."""
        offsets: Tensor = normals * (radii[:, None, None] / normals.norm(dim=2, keepdim=True))
        return offsets

    def expands(self, inside: Tensor) -> Tensor:
        """Tell for points inside the class or not, bool (B, N), whether the class fills the sphere (B,)."""
        n = inside.shape[1]
        return 2 * inside.sum(dim=1) - n > self.expand_share * n

    def direction(self, offsets: Tensor, inside: Tensor, radii: Tensor) -> Tensor:
        """Return the estimated direction away from the boundary (B, d), of length at most 1.

        It is the mean over the sphere of -u for directions u that lead out of the class and, unless ``outward_only``,
        of +u for those that do not. radii (B,): what the offsets (B, N, d) are divided by.
        """
        signs = inside.to(offsets.dtype) * (1 if self.outward_only else 2) - 1
        return (signs[:, :, None] * offsets).mean(dim=1) / radii[:, None]

    def propose(self, latents: Tensor, directions: Tensor, radii: Tensor) -> Tensor:
        """Return latents (B, d) moved along the directions by the step of a sphere of ``radii`` (B,)."""
        lengths = (self.step_share * radii).clamp(max=self.longest_step)
        return clamp_box(latents + lengths[:, None] * directions, -self.box, self.box)


@dataclass(frozen=True, kw_only=True)
class BoundarySearch:
    """How to search: all points of all rows in work are asked about together.

    points: on each sphere. rounds: at most so many. patience: a row retires after so many accepted steps since its
    sphere last grew. max_rejected: it also retires after so many proposals in a row that left the class; the
    published code would go on for ever. reported: the point of the first accepted step at the last growth
    (``growth``, as published), or where the row stands at its end (``last``). stands: so many earlier stands are kept
    in ``Found.course``, ever further apart.
    """

    rule: Repulsion
    points: int
    rounds: int
    patience: int
    max_rejected: int
    reported: Literal["growth", "last"] = "growth"
    stands: int = 0

    def run(self, ask: Ask, rows: Rows, runtime: Runtime) -> Found:
        """Search all rows, whose starts (N, d) must be of their class; ``rows.draw`` gives N(0, 1), points * d a round.

        Its values are the reported points, its losses the negative radius of the largest sphere that the class filled
        there (0 when none did), its history the radius.
        A budget that ends does not raise: `Found.complete` tells.
        """
        work, kept = _Work(self, rows), spaced(self.rounds, self.stands)
        with runtime.progress.track("repelling from boundaries", self.rounds) as report, torch.no_grad():
            try:
                while work.active and work.round < self.rounds:
                    if work.round in kept:
                        work.remember()
                    work.step(ask)
                    report(work.round)
            except BudgetExceeded:
                work.stop()
        return work.found()


class _Work:
    """The state of all rows, and which of them are still in work."""

    def __init__(self, search: BoundarySearch, rows: Rows) -> None:
        self.search, self.rows, self.round = search, rows, 0
        n, device = len(rows.owners), rows.starts.device
        self.active = list(range(n))
        self._statuses = [RowStatus.DONE] * n
        self._latents, self._kept = rows.starts.clone(), rows.starts.clone()
        self._radii = torch.full((n,), search.rule.radius, device=device)
        self._filled = torch.zeros(n, device=device)
        self._stalled = torch.zeros(n, dtype=torch.int64, device=device)
        self._rejected = torch.zeros(n, dtype=torch.int64, device=device)
        self._rounds = torch.zeros(n, dtype=torch.int64, device=device)
        self._trace: list[Tensor] = []
        self._course: list[Stand] = []
        self._directions: dict[int, Tensor] = {}

    def remember(self) -> None:
        """Keep where the search stands."""
        asked = self._rounds * (self.search.points + 1)
        self._course.append(Stand(values=self._kept.clone(), losses=-self._filled, queries=asked))

    def step(self, ask: Ask) -> None:
        """Ask about one sphere and one proposal of each row in work, and let those go that are done."""
        rule, index = self.search.rule, torch.tensor(self.active, device=self._latents.device)
        owners = [self.rows.owners[row] for row in self.active]
        latents, radii, labels = self._latents[index], self._radii[index], self.rows.constants["labels"][index]
        offsets = rule.sphere(self._normals(), radii)
        around = (latents[:, None] + offsets).flatten(0, 1)
        answers = ask(around, [owner for owner in owners for _ in range(self.search.points)])
        inside = answers.view(len(index), -1) == labels[:, None]
        grows = rule.expands(inside)
        wider = torch.where(grows, radii * rule.growth, radii)
        proposals = rule.propose(latents, rule.direction(offsets, inside, wider), radii)
        accepted = ask(proposals, owners) == labels
        self._move(index, proposals, accepted, grows, wider)
        self._look(index, radii)

    def _normals(self) -> Tensor:
        """Return this round's random directions (B, points, d) of the rows in work."""
        if self.rows.draw is None:
            raise ValueError("the rows need a draw of random directions")
        place = self.round % BLOCK
        if place == 0:
            self._directions = {row: self.rows.draw(row, BLOCK) for row in self.active}
        drawn = torch.stack([self._directions[row][place] for row in self.active])
        return drawn.view(len(self.active), self.search.points, -1)

    def _move(self, index: Tensor, proposals: Tensor, accepted: Tensor, grows: Tensor, wider: Tensor) -> None:
        """Take over accepted proposals; a sphere grows even if the proposal of its round is rejected."""
        reported = accepted & grows if self.search.reported == "growth" else accepted
        self._latents[index] = torch.where(accepted[:, None], proposals, self._latents[index])
        self._kept[index] = torch.where(reported[:, None], proposals, self._kept[index])
        self._filled[index] = torch.where(accepted & grows, self._radii[index], self._filled[index])
        self._radii[index] = wider
        self._stalled[index] = torch.where(grows, 0, self._stalled[index] + accepted)
        self._rejected[index] = torch.where(accepted, 0, self._rejected[index] + 1)

    def _look(self, index: Tensor, radii: Tensor) -> None:
        """Record the radii, and release rows: one wait for the device a round, which asked the target anyway."""
        if self.round % LOOK_EVERY == 0:
            self._trace.append(torch.full_like(self._radii, torch.nan).index_copy(0, index, radii))
        self.round += 1
        self._rounds[index] += 1
        search = self.search
        done = (self._stalled[index] >= search.patience) | (self._rejected[index] >= search.max_rejected)
        self.active = [row for row, is_done in zip(self.active, done.tolist(), strict=True) if not is_done]

    def stop(self) -> None:
        """Mark the rows that the budget ended; even one without a round has its start, which is of its class."""
        for row in self.active:
            self._statuses[row] = RowStatus.STOPPED

    def found(self) -> Found:
        """Return the result."""
        n = len(self.rows.owners)
        history = torch.stack(self._trace, dim=1).cpu() if self._trace else torch.empty(n, 0)
        return Found(
            values=self._kept, losses=-self._filled, steps=self._rounds, statuses=tuple(self._statuses),
            history=history, course=tuple(self._course),
        )  # fmt: skip
