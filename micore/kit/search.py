"""One search for all attacks that move values down a gradient: latents, pixels, features, (mean, spread).

Rows are (case x restart). A fixed number of them, ``runtime.tile``, is in work at a time: every forward
pass has the same shape, so that a row's arithmetic does not depend on how many others there are. A row
that has taken all its steps, has converged, or has left the finite numbers makes room for one that waits.
Losses are summed, never averaged, and optimisers keep each row to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from micore.errors import BudgetExceeded
from micore.kit.row_optimizers import RowOptimizer, State
from micore.runtime import Runtime
from micore.threat import Ledger

__all__ = ["Draw", "Found", "Objective", "RowSearch", "RowStatus", "Rows", "Stand"]

Objective = Callable[[Tensor, Mapping[str, Tensor], Tensor], Tensor]
"""(values (B, ...), constants of these rows, numbers (B, P)) -> losses (B,): lower is better."""
Draw = Callable[[int, int], Tensor]
"""(row, n) -> (n, P): the row's random numbers of its next n steps, from a stream of its own."""

BLOCK = 50
"""Steps whose random numbers are drawn at once; part of the result, as it orders the draws."""
LOOK_EVERY = 25
"""Steps between two looks at the losses: entries of the history, convergence, finiteness."""


class RowStatus(Enum):
    """How the search of a row ended."""

    WAITING = "waiting"
    """It was never begun: the budget ended before."""
    STOPPED = "stopped"
    """The budget ended it early."""
    FAILED = "failed"
    """Its loss left the finite numbers."""
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is searched.

    starts: (N, ...) where each row begins; owners: the id of each row's case (N); constants: tensors
    (N, ...) that the objective needs of each row, such as its label; draw: random numbers for the
    objective, None when it needs none.
    """

    starts: Tensor
    owners: Sequence[str]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    draw: Draw | None = None


@dataclass(frozen=True, kw_only=True)
class Stand:
    """Where a search stood at one moment.

    values (N, ...): what it would have given back; losses (N,): of these; queries (N,): what each row had asked.
    """

    values: Tensor
    losses: Tensor
    queries: Tensor


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search found.

    values (N, ...): the kept state of each row; losses (N,): the loss of that state (of the last evaluated one
    when the last is kept), NaN where there is none; steps (N,): steps taken; statuses: of each row;
    history (N, looks): the loss at every ``LOOK_EVERY``-th step, on the CPU, NaN beyond the row's end; course: earlier
    stands, where the search keeps them.
    """

    values: Tensor
    losses: Tensor
    steps: Tensor
    statuses: Sequence[RowStatus]
    history: Tensor
    course: Sequence[Stand] = ()

    @property
    def complete(self) -> bool:
        """Whether the budget let every row end."""
        return not {RowStatus.WAITING, RowStatus.STOPPED} & set(self.statuses)


@dataclass(frozen=True, kw_only=True)
class RowSearch:
    """How to search.

    steps: at most so many for each row. constraint: (values, starts) -> values, after each step (a box, a
    ball around the start). keep: the state to give back: after the last step, or with the lowest loss seen.
    patience: a row retires when its lowest loss has not fallen by ``tolerance`` for so many steps; None: never.
    enough: a row retires when its lowest loss is at or below this; None: never. Both are looked at every
    ``LOOK_EVERY`` steps.
    """

    objective: Objective
    optimizer: RowOptimizer
    steps: int
    constraint: Callable[[Tensor, Tensor], Tensor] | None = None
    keep: Literal["last", "best"] = "last"
    patience: int | None = None
    tolerance: float = 1e-3
    enough: float | None = None

    def run(self, rows: Rows, ledger: Ledger, runtime: Runtime, description: str = "searching") -> Found:
        """Search all rows; what the target sees is charged to their cases.

        A budget that ends does not raise: `Found.complete` tells.
        """
        if self.steps == 0:
            return _untouched(rows)
        work = _Work(self, rows, runtime)
        total = len(rows.owners) * self.steps
        with runtime.progress.track(description, total) as report, torch.enable_grad():
            try:
                while work.active:
                    owners = work.owners
                    with ledger.owned_by(owners, padding=runtime.tile - len(owners), rows=runtime.tile):
                        work.step()
                    report(work.steps_done)
            except BudgetExceeded:
                work.stop()
        return work.found()


def _untouched(rows: Rows) -> Found:
    n = len(rows.owners)
    nothing = torch.full((n,), torch.nan, device=rows.starts.device)
    return Found(
        values=rows.starts.clone(), losses=nothing, steps=torch.zeros(n, dtype=torch.int64),
        statuses=(RowStatus.DONE,) * n, history=torch.empty(n, 0),
    )  # fmt: skip


class _Work:
    """The rows in work, each in one of ``tile`` places; empty places repeat the first row and are not counted."""

    def __init__(self, search: RowSearch, rows: Rows, runtime: Runtime) -> None:
        self.search, self.rows, self.runtime = search, rows, runtime
        n, tile, device = len(rows.owners), runtime.tile, rows.starts.device
        self.steps_done = 0
        self._waiting = list(range(n))[::-1]
        self._places: list[int | None] = [None] * tile
        self._ages = [0] * tile
        self._statuses = [RowStatus.WAITING] * n
        self._kept = rows.starts.clone()
        self._kept_losses = torch.full((n,), torch.nan, device=device)
        self._taken = torch.zeros(n, dtype=torch.int64, device=device)
        self._trace = torch.full((n, -(-search.steps // LOOK_EVERY)), torch.nan, device=device)
        self._index = torch.zeros(tile, dtype=torch.int64, device=device)
        self._values = rows.starts[self._index].clone()
        self._state: State = search.optimizer.start(self._values)
        self._age = torch.zeros(tile, device=device)
        self._best = self._values.clone()
        self._best_losses = torch.full((tile,), torch.inf, device=device)
        self._last_losses = torch.full((tile,), torch.nan, device=device)
        self._settled_losses = torch.full((tile,), torch.inf, device=device)
        self._settled_ages = torch.zeros(tile, device=device)
        self._finite = torch.ones(tile, dtype=torch.bool, device=device)
        self._numbers = torch.empty(tile, BLOCK, 0, device=device)
        self._fill()

    @property
    def active(self) -> bool:
        """Whether any row is in work."""
        return any(row is not None for row in self._places)

    @property
    def owners(self) -> list[str]:
        """The cases of the rows in work, once per row."""
        return [self.rows.owners[row] for row in self._places if row is not None]

    def step(self) -> None:
        """Take one step with all rows in work, and let those go that are done."""
        self._draw()
        losses = self._descend()
        self._ages = [age + 1 for age in self._ages]
        self.steps_done += sum(row is not None for row in self._places)
        self._look(losses)

    def stop(self) -> None:
        """Keep what the rows in work have reached."""
        places = [place for place, row in enumerate(self._places) if row is not None]
        self._keep(places)
        for place in places:
            row = self._places[place]
            if row is not None and self._ages[place]:
                self._statuses[row] = RowStatus.STOPPED

    def found(self) -> Found:
        """Return the result."""
        return Found(
            values=self._kept, losses=self._kept_losses, steps=self._taken, statuses=tuple(self._statuses),
            history=self._trace.cpu(),
        )  # fmt: skip

    # one step -------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Draw the next block for the places whose row is at the start of one."""
        draw = self.rows.draw
        places = [place for place, age in enumerate(self._ages) if age % BLOCK == 0]
        if draw is None or not places:
            return
        blocks = {row: draw(row, BLOCK) for row in (self._places[place] for place in places) if row is not None}
        if not blocks:
            return
        filler = next(iter(blocks.values()))
        if self._numbers.shape[2] != filler.shape[1]:
            self._numbers = filler.new_zeros(self.runtime.tile, BLOCK, filler.shape[1])
        index = torch.tensor(places, device=self._numbers.device)
        self._numbers[index] = torch.stack([blocks.get(self._row(place), filler) for place in places])

    def _row(self, place: int) -> int:
        row = self._places[place]
        return -1 if row is None else row

    def _descend(self) -> Tensor:
        search = self.search
        values = self._values.detach().requires_grad_(True)
        block = (self._age % BLOCK).long()
        numbers = self._numbers[torch.arange(len(block), device=block.device), block]
        with self.runtime.autocast():
            losses = search.objective(values, self._constants, numbers)
        (gradients,) = torch.autograd.grad(losses.sum(), values)
        with torch.no_grad():
            losses = losses.detach().float()
            lower = losses < self._best_losses
            self._best_losses = torch.where(lower, losses, self._best_losses)
            self._best = torch.where(lower.view(-1, *[1] * (values.ndim - 1)), values, self._best)
            self._finite &= torch.isfinite(losses)
            self._age = self._age + 1
            moved, self._state = search.optimizer.step(values, gradients, self._state, self._age)
            moved = moved if search.constraint is None else search.constraint(moved, self._starts)
            self._values, self._last_losses = moved.detach(), losses
        return losses

    def _look(self, losses: Tensor) -> None:
        """Record losses and release rows: only at every 25th step of a row, as it waits for the device."""
        ended = [place for place, age in enumerate(self._ages) if self._row(place) >= 0 and age >= self.search.steps]
        due = [place for place, age in enumerate(self._ages) if self._row(place) >= 0 and age % LOOK_EVERY == 1]
        if due:
            index = torch.tensor(due, device=losses.device)
            columns = torch.tensor([self._ages[place] // LOOK_EVERY for place in due], device=losses.device)
            self._trace[self._index[index], columns] = losses[index]
            ended += [place for place in self._converged(due) if place not in ended]
        if ended:
            self._release(sorted(ended))

    def _converged(self, due: Sequence[int]) -> list[int]:
        """Return the places whose row has settled or reached enough, or is no longer finite."""
        gone = ~self._finite
        if self.search.enough is not None:
            gone = gone | (self._best_losses <= self.search.enough)
        if self.search.patience is not None:
            fell = self._best_losses < self._settled_losses - self.search.tolerance
            self._settled_losses = torch.where(fell, self._best_losses, self._settled_losses)
            self._settled_ages = torch.where(fell, self._age, self._settled_ages)
            gone = gone | (self._age - self._settled_ages >= self.search.patience)
        flags = gone.tolist()
        return [place for place in due if flags[place]]

    # rows come and go -----------------------------------------------------------------------------

    def _release(self, places: Sequence[int]) -> None:
        finite = self._finite.tolist()
        self._keep(places)
        for place in places:
            row = self._row(place)
            self._statuses[row] = RowStatus.DONE if finite[place] else RowStatus.FAILED
            self.steps_done += self.search.steps - self._ages[place]
            self._places[place] = None
        self._fill()

    def _keep(self, places: Sequence[int]) -> None:
        index = torch.tensor(places, dtype=torch.int64, device=self._values.device)
        rows = self._index[index]
        best = self.search.keep == "best"
        self._kept[rows] = (self._best if best else self._values)[index]
        self._kept_losses[rows] = (self._best_losses if best else self._last_losses)[index]
        self._taken[rows] = self._age[index].long()

    def _fill(self) -> None:
        """Put waiting rows into empty places."""
        entered = []
        for place, row in enumerate(self._places):
            if row is None and self._waiting:
                self._places[place], self._ages[place] = self._waiting.pop(), 0
                entered.append(place)
        if entered:
            self._enter(entered)
        self._constants = {name: values[self._index] for name, values in self.rows.constants.items()}
        self._starts = self.rows.starts[self._index]

    def _enter(self, places: Sequence[int]) -> None:
        device = self._values.device
        index = torch.tensor(places, device=device)
        rows = torch.tensor([self._row(place) for place in places], device=device)
        starts = self.rows.starts[rows]
        self._index[index] = rows
        self._values = self._values.index_copy(0, index, starts)
        self._best = self._best.index_copy(0, index, starts)
        fresh = self.search.optimizer.start(starts)
        self._state = tuple(old.index_copy(0, index, new) for old, new in zip(self._state, fresh, strict=True))
        for name, value in (
            ("_age", 0.0), ("_best_losses", torch.inf), ("_last_losses", torch.nan),
            ("_settled_losses", torch.inf), ("_settled_ages", 0.0), ("_finite", True),
        ):  # fmt: skip
            tensor = getattr(self, name)
            setattr(self, name, tensor.index_fill(0, index, value))
