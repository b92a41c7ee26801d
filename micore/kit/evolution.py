"""Search without gradients: every row is a population of its own, and all populations are asked about together.

Rows are (case x restart), as in `micore.kit.search`; here a row begins with P members (P, D), and what it finds is
its best member. In each generation all rows that are still at work propose new members, and one pass in tiles of
``runtime.tile`` tells their losses: whichever rows share a tile, its shape is the same, so that a row's arithmetic
does not depend on the others. Every row has its own random numbers. A row that has found enough asks no more.

Selection, crossover, mutation and the differences of members are functions of tensors over (rows, members,
dimensions); their random numbers are arguments.

Sources: An et al., "MIRROR" (NDSS 2022), section IV (the genetic algorithm with parents drawn by their fitness); Storn
& Price, "Differential Evolution" (Journal of Global Optimization, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from micore.errors import BudgetExceeded
from micore.kit.case_rows import tiled
from micore.kit.search import Found, Rows, RowStatus, Stand
from micore.kit.selection import stable_top_k
from micore.runtime import Runtime
from micore.threat import Ledger

__all__ = [
    "Breeding", "Differential", "Genetic", "MemberLosses", "PopulationSearch", "ask_members", "asked_losses",
    "crossover", "difference_steps", "likelihood_share", "other_members", "proportional_parents", "spaced",
    "uniform_mutation",
]  # fmt: skip

MemberLosses = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""(members (B, D), constants of their rows) -> losses (B,): lower is better. It asks the target: B queries."""
Share = Callable[[Tensor, Tensor], Tensor]
"""Losses of the first and second parents, (...) each -> probability that a gene is the first one's, (...)."""


# members of a population ------------------------------------------------------------------------------------


def proportional_parents(losses: Tensor, throws: Tensor) -> Tensor:
    """Draw members with probability in proportion to exp(-loss): of a negative log-probability, to the probability.

    losses: (A, P), infinite for members that must not be drawn; throws: (A, M) in [0, 1). Returns indices (A, M).
    """
    heights = torch.softmax(-losses, dim=1).cumsum(dim=1)
    places = torch.searchsorted(heights.contiguous(), (throws * heights[:, -1:]).contiguous(), right=True)
    return places.clamp(max=losses.shape[1] - 1)


def likelihood_share(first: Tensor, second: Tensor) -> Tensor:
    """Return p1 / (p1 + p2) of probabilities p = exp(-loss): the better parent gives more, equal ones half each.

    It is the logistic function of the difference of the losses, and so holds where both probabilities underflow.
    """
    return torch.sigmoid(second - first).nan_to_num(nan=0.5)


def crossover(first: Tensor, second: Tensor, share: Tensor, throws: Tensor) -> Tensor:
    """Take each gene from the first parent where its throw is below the pair's share, else from the second.

    first, second, throws: (A, M, D), throws in [0, 1); share: (A, M) in [0, 1]. A share of 0 never takes the first,
    a share of 1 always does.
    """
    return torch.where(throws < share[..., None], first, second)


def uniform_mutation(members: Tensor, reach: Tensor | float, rate: float, throws: Tensor, amounts: Tensor) -> Tensor:
    """Move each gene, with probability ``rate``, by a uniform amount of at most ``reach`` to either side.

    members, throws, amounts: (A, M, D), the last two in [0, 1); reach: a number, or (D,).
    """
    return torch.where(throws < rate, members + reach * (2 * amounts - 1), members)


def other_members(throws: Tensor) -> Tensor:
    """Draw ordered pairs of two members, different from each other and from the member that they are for.

    throws: (A, P, pairs, 2) in [0, 1), P >= 3. Returns indices (A, P, pairs, 2), uniform over all such pairs.
    """
    size = throws.shape[1]
    own = torch.arange(size, device=throws.device)[:, None]
    first = (throws[..., 0] * (size - 1)).long().clamp(max=size - 2)
    first = first + (first >= own)
    second = (throws[..., 1] * (size - 2)).long().clamp(max=size - 3)
    second = second + (second >= torch.minimum(first, own))
    second = second + (second >= torch.maximum(first, own))
    return torch.stack([first, second], dim=-1)


def difference_steps(members: Tensor, best: Tensor, pairs: Tensor, *, pull: float, scale: float) -> Tensor:
    """Return x + pull (best - x) + scale * sum over pairs (x_a - x_b) for every member x.

    members: (A, P, D); best: (A, D), each population's; pairs: indices (A, P, pairs, 2).
    """
    moved = members + pull * (best[:, None] - members)
    for pair in pairs.unbind(2):  # a fixed order of additions, whatever the number of rows
        moved = moved + scale * (_members_at(members, pair[..., 0]) - _members_at(members, pair[..., 1]))
    return moved


def _members_at(members: Tensor, indices: Tensor) -> Tensor:
    """Return members (A, M, D) of populations (A, P, D) at indices (A, M)."""
    return members.gather(1, indices[..., None].expand(-1, -1, members.shape[2]))


def _best_member(members: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best member (A, 1, D) and its loss (A, 1), of equal ones the first."""
    best = stable_top_k(-losses, 1)
    return _members_at(members, best.indices), -best.scores


def _parts(numbers: Tensor, *shapes: Sequence[int]) -> list[Tensor]:
    """Cut numbers (A, n) into tensors (A, *shape)."""
    parts = numbers.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, tuple(shape)) for part, shape in zip(parts, shapes, strict=True)]


# ways to breed ----------------------------------------------------------------------------------------------


class Breeding(Protocol):
    """How populations change in one generation; members (A, P, D), losses (A, P), one population per row."""

    def n_numbers(self, size: int, dims: int) -> int:
        """Return how many numbers from U[0, 1) a population of ``size`` members takes in each generation."""

    def propose(self, members: Tensor, losses: Tensor, numbers: Tensor, generation: int) -> Tensor:
        """Return new members (A, Q, D); numbers: (A, n_numbers); generations count from 0."""

    def settle(self, members: Tensor, losses: Tensor, proposals: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next populations and their losses, from the losses (A, Q) of the proposals."""


@dataclass(frozen=True, kw_only=True)
class Genetic:
    """The best member stays; all others are replaced by children of two parents (MIRROR, section IV).

    reach: of a mutation, a number or (D,); mutation_rate: probability that a gene mutates; share: how much of a
    child is its first parent's. A population of P members asks P - 1 times in each generation: the best member's
    loss is known.
    """

    reach: Tensor | float
    mutation_rate: float
    share: Share = likelihood_share

    def n_numbers(self, size: int, dims: int) -> int:
        """Two parents for each child; crossover, mutation and its amount for each gene."""
        return (size - 1) * (2 + 3 * dims)

    def propose(self, members: Tensor, losses: Tensor, numbers: Tensor, generation: int) -> Tensor:
        """Return a child for all but one member."""
        children, genes = members.shape[1] - 1, (members.shape[1] - 1, members.shape[2])
        throws, mixing, mutating, amounts = _parts(numbers, (2 * children,), genes, genes, genes)
        first, second = proportional_parents(losses, throws).chunk(2, dim=1)
        share = self.share(losses.gather(1, first), losses.gather(1, second))
        born = crossover(_members_at(members, first), _members_at(members, second), share, mixing)
        return uniform_mutation(born, self.reach, self.mutation_rate, mutating, amounts)

    def settle(self, members: Tensor, losses: Tensor, proposals: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best member and the children."""
        best, loss = _best_member(members, losses)
        return torch.cat([best, proposals], dim=1), torch.cat([loss, answers], dim=1)


@dataclass(frozen=True, kw_only=True)
class Differential:
    """Each member makes way for a mixture of itself and a `difference_steps` child, if that is better.

    scale: of the differences, by generation; pull: towards the best; pairs: differences that are added up; mix:
    probability that a gene is the child's. A population of P members, at least 3, asks P times in each generation:
    the members' own losses are known.
    """

    scale: Callable[[int], float]
    pull: float
    pairs: int = 1
    mix: float = 0.5

    def n_numbers(self, size: int, dims: int) -> int:
        """Two members for each difference, and which genes are the child's."""
        return size * (2 * self.pairs + dims)

    def propose(self, members: Tensor, losses: Tensor, numbers: Tensor, generation: int) -> Tensor:
        """Return a rival for each member."""
        size, dims = members.shape[1:]
        throws, mixing = _parts(numbers, (size, self.pairs, 2), (size, dims))
        best, _ = _best_member(members, losses)
        scale = self.scale(generation)
        moved = difference_steps(members, best[:, 0], other_members(throws), pull=self.pull, scale=scale)
        return torch.where(mixing < self.mix, moved, members)

    def settle(self, members: Tensor, losses: Tensor, proposals: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the better one of each member and its rival; of equal ones the member."""
        better = answers < losses
        return torch.where(better[..., None], proposals, members), torch.where(better, answers, losses)


# the search -------------------------------------------------------------------------------------------------


def asked_losses(
    render: Callable[[Tensor], Tensor], scores: Callable[[Tensor], Tensor], loss: Callable[[Tensor, Tensor], Tensor]
) -> MemberLosses:
    """Return the losses of members, from what the target says of the samples that they stand for.

    loss: answers (B, K) and the labels wanted of them (B,) to losses (B,).
    """
    return lambda members, constants: loss(scores(render(members)).float(), constants["labels"])


def ask_members(
    score: MemberLosses, members: Tensor, rows: Rows, ledger: Ledger, runtime: Runtime, known: Tensor | None = None
) -> tuple[Tensor, bool]:
    """Return the losses (N, M) of members (N, M, D) of rows, and whether the budget was enough.

    Members whose ``known`` loss is not NaN are not asked about. NaN in the result: the budget left no answer. An
    answer that is NaN itself counts as infinite, the worst there is.
    """
    per_row = members.shape[1]
    losses = members.new_full(members.shape[:2], torch.nan) if known is None else known.clone()
    flat, members = losses.flatten(), members.flatten(0, 1)
    missing = flat.isnan().nonzero().flatten()
    owners = [rows.owners[row] for row in (missing // per_row).tolist()]

    def answers(batch: Tensor, *constants: Tensor) -> Tensor:
        return score(batch, dict(zip(rows.constants, constants, strict=True))).float()

    for start in range(0, len(missing), runtime.tile):
        index = missing[start : start + runtime.tile]
        batch = [members[index], *(values[index // per_row] for values in rows.constants.values())]
        charged = owners[start : start + runtime.tile]
        try:
            told = tiled(answers, runtime.tile, *batch, ledger=ledger, owners=charged)
        except BudgetExceeded:
            return flat.view_as(losses), False
        flat[index] = torch.where(told.isnan(), torch.inf, told).to(flat.dtype)
    return flat.view_as(losses), True


@dataclass(frozen=True, kw_only=True)
class PopulationSearch:
    """How to search.

    score: losses of members; generations: at most so many for each row; constraint: members (..., D) to members, for
    all that is proposed; enough: a row is done when its best loss is at or below this; None: never. stands: so many
    earlier stands are kept in ``Found.course``, ever further apart.
    """

    score: MemberLosses
    breeding: Breeding
    generations: int
    constraint: Callable[[Tensor], Tensor] | None = None
    enough: float | None = None
    stands: int = 0

    def run(
        self, rows: Rows, ledger: Ledger, runtime: Runtime, known: Tensor | None = None, description: str = "evolving"
    ) -> Found:
        """Search all rows; what the target sees is charged to their cases.

        rows: starts (N, P, D), and a draw of the breeding's numbers. known: losses (N, P) of starts that the target
        was asked about before, NaN for the others, which it is asked about first.

        Found: values (N, D), the best member seen; losses of these; steps, the generations that a row went through;
        history (N, generations + 1), the best loss so far at the start and after each generation. A row fails when a
        whole generation of it has no finite loss. A budget that ends does not raise: `Found.complete` tells, and the
        best that was seen until then is kept.

        Raises: ValueError without a draw.
        """
        if rows.draw is None and self.generations:
            raise ValueError("populations need random numbers: rows with a draw of the breeding's n_numbers")
        work, kept = _Work(self, rows, ledger, runtime), spaced(self.generations, self.stands)
        with runtime.progress.track(description, self.generations) as report, torch.no_grad():
            lasting = work.begin(known)
            for generation in range(self.generations):
                if not (lasting and work.active):
                    break
                if generation in kept:
                    work.remember()
                lasting = work.advance(generation)
                report(generation + 1)
        return work.found(lasting)


def spaced(steps: int, n: int) -> set[int]:
    """Return up to n of the numbers from 0 to steps - 1: 0, and others each about as many times the one before."""
    return {round(steps ** (index / n)) - 1 for index in range(n)} if steps else set()


class _Work:
    """All populations, and which of them are still at work."""

    def __init__(self, search: PopulationSearch, rows: Rows, ledger: Ledger, runtime: Runtime) -> None:
        self.search, self.rows, self.ledger, self.runtime = search, rows, ledger, runtime
        n, device = len(rows.owners), rows.starts.device
        self.active = list(range(n))
        self._statuses = [RowStatus.WAITING] * n
        self._members = rows.starts.clone()
        self._losses = torch.full(rows.starts.shape[:2], torch.inf, device=device)
        self._best, self._best_losses = rows.starts[:, 0].clone(), torch.full((n,), torch.inf, device=device)
        self._taken = torch.zeros(n, dtype=torch.int64, device=device)
        self._trace = torch.full((n, search.generations + 1), torch.nan, device=device)
        self._asked = torch.zeros(n, dtype=torch.int64, device=device)
        self._course: list[Stand] = []

    def remember(self) -> None:
        """Keep where the search stands."""
        self._course.append(Stand(
            values=self._best.clone(), losses=self._best_losses.clone(), queries=self._asked.clone()
        ))  # fmt: skip

    def begin(self, known: Tensor | None) -> bool:
        """Ask about the starts; return whether the budget was enough."""
        index, rows = self._at_work()
        losses, enough = ask_members(self.search.score, self._members, rows, self.ledger, self.runtime, known)
        self._keep(index, self._members, losses)
        self._asked += self._members.shape[1] if known is None else known.isnan().sum(dim=1)
        self._losses = losses.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        if enough:
            self._look(index, losses, 0)
        return enough

    def advance(self, generation: int) -> bool:
        """Breed all populations at work once; return whether the budget was enough."""
        breeding, (index, rows) = self.search.breeding, self._at_work()
        members, losses = rows.starts, self._losses[index]
        proposals = breeding.propose(members, losses, self._draw(), generation)
        proposals = proposals if self.search.constraint is None else self.search.constraint(proposals)
        answers, enough = ask_members(self.search.score, proposals, rows, self.ledger, self.runtime)
        self._keep(index, proposals, answers)
        self._asked[index] += proposals.shape[1]
        if enough:
            self._members[index], self._losses[index] = breeding.settle(members, losses, proposals, answers)
            self._taken[index] += 1
            self._look(index, answers, generation + 1)
        return enough

    def found(self, enough: bool) -> Found:
        """Return the result."""
        begun = self._best_losses.isfinite().tolist()
        for row in self.active:
            stopped = RowStatus.STOPPED if begun[row] else RowStatus.WAITING
            self._statuses[row] = RowStatus.DONE if enough else stopped
        losses = torch.where(self._best_losses.isinf(), torch.nan, self._best_losses)
        return Found(
            values=self._best, losses=losses, steps=self._taken, statuses=tuple(self._statuses),
            history=self._trace.cpu(), course=tuple(self._course),
        )  # fmt: skip

    def _at_work(self) -> tuple[Tensor, Rows]:
        """Return the rows at work: their places (A,), and their members with what the score needs."""
        index = torch.tensor(self.active, dtype=torch.int64, device=self._members.device)
        constants = {name: values[index] for name, values in self.rows.constants.items()}
        owners = [self.rows.owners[row] for row in self.active]
        return index, Rows(starts=self._members[index], owners=owners, constants=constants)

    def _draw(self) -> Tensor:
        draw = self.rows.draw
        return torch.cat([draw(row, 1) for row in self.active]) if draw is not None else self._losses.new_empty(0)

    def _keep(self, index: Tensor, members: Tensor, losses: Tensor) -> None:
        """Note the best members seen, also of a generation that the budget cut short."""
        best, loss = _best_member(members, losses)
        better = loss[:, 0] < self._best_losses[index]
        self._best[index] = torch.where(better[:, None], best[:, 0], self._best[index])
        self._best_losses[index] = torch.where(better, loss[:, 0], self._best_losses[index])

    def _look(self, index: Tensor, losses: Tensor, column: int) -> None:
        """Record the best losses and let rows go that are done or failed.

        It waits for the device, once in a generation: a query saved is worth more.
        """
        best = self._best_losses[index]
        self._trace[index, column] = best
        finite = losses.isfinite().any(dim=1)
        done = torch.zeros_like(finite) if self.search.enough is None else best <= self.search.enough
        flags = torch.stack([finite, done]).tolist()
        for row, is_finite, is_done in zip(tuple(self.active), *flags, strict=True):
            if is_finite and not is_done:
                continue
            self._statuses[row] = RowStatus.DONE if is_finite else RowStatus.FAILED
            self.active.remove(row)
