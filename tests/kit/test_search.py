"""The search over rows: independence, retirement, accounting, budget, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from micore.contracts import Case, Reconstruction
from micore.errors import BudgetExceeded, CaseFailed
from micore.kit.case_rows import (
    make_rows,
    normal_draws,
    reconstructions,
    score_rows,
    standard_normal,
    tiled,
    uniform_draws,
)
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import BLOCK, LOOK_EVERY, Found, Rows, RowSearch, RowStatus
from micore.runtime import Runtime
from micore.threat import Budget, Ledger, Spending

GOAL = torch.tensor([1.0, -1.0, 2.0])


def runtime(tile: int = 4) -> Runtime:
    return Runtime(device=torch.device("cpu"), tile=tile)


def cases(n: int) -> list[Case]:
    return [Case(id=f"class-{label}", goal="class", label=label) for label in range(n)]


class Bowl:
    """Squared distance to a goal per label, under noise; charges a ledger as a target would."""

    def __init__(self, ledger: Ledger | None = None, passes: int = 1) -> None:
        self.ledger, self.passes = ledger or Ledger(), passes
        self.sizes: list[int] = []

    def __call__(self, values: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        self.sizes.append(len(values))
        self.ledger.charge(queries=len(values) * self.passes)
        self.ledger.charge(gradients=len(values) * self.passes)
        noise = 0.01 * numbers[:, :3] if numbers.shape[1] else 0.0
        return (values - GOAL * (rows["labels"][:, None] + 1) + noise).square().sum(dim=1)


def search(
    n_cases: int, restarts: int = 2, *, steps: int = 60, tile: int = 4, only: Sequence[int] | None = None,
    bowl: Bowl | None = None, noise: bool = True, **options: object,
) -> Found:  # fmt: skip
    machine, chosen = runtime(tile), [case for case in cases(n_cases) if only is None or case.label in only]
    starts = standard_normal(chosen, (restarts, 3), machine)
    draw = uniform_draws(chosen, restarts, 3, machine) if noise else None
    bowl = bowl or Bowl()
    engine = RowSearch(objective=bowl, optimizer=RowAdam(learning_rate=0.2), steps=steps, **options)  # type: ignore[arg-type]
    return engine.run(make_rows(chosen, starts, draw), bowl.ledger, machine)


def test_it_finds_the_bottom_of_every_row() -> None:
    found = search(3, steps=150)
    goals = GOAL * torch.tensor([1.0, 1, 2, 2, 3, 3])[:, None]
    torch.testing.assert_close(found.values, goals, rtol=0, atol=0.05)
    assert found.complete
    assert found.steps.tolist() == [150] * 6


def test_every_pass_has_the_same_shape() -> None:
    bowl = Bowl()
    search(3, bowl=bowl, steps=5)
    assert set(bowl.sizes) == {4}
    assert len(bowl.sizes) == 10  # six rows in tiles of four: two rounds


def test_history_is_the_loss_at_every_25th_step() -> None:
    found = search(1, steps=LOOK_EVERY + 1)
    assert found.history.shape == (2, 2)
    assert (found.history[:, 1] < found.history[:, 0]).all()
    first = search(1, steps=1)
    assert torch.equal(found.history[:, 0], first.losses)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.data())
def test_a_case_does_not_depend_on_the_others(n_cases: int, restarts: int, data: st.DataObject) -> None:
    label = data.draw(st.integers(0, n_cases - 1))
    together, alone = search(n_cases, restarts), search(n_cases, restarts, only=[label])
    rows = slice(label * restarts, (label + 1) * restarts)
    assert torch.equal(together.values[rows], alone.values)
    assert (
        torch.equal(
            together.history[rows],
            alone.history,
        )
        or torch.isnan(alone.history).any()
    )


def test_rows_that_retire_make_room_and_change_nothing_for_others() -> None:
    """Rows retire at different steps, so waiting rows enter at odd times."""
    options = {"steps": 400, "patience": 50, "noise": False}
    together = search(5, 2, **options)  # type: ignore[arg-type]
    assert len(set(together.steps.tolist())) > 1
    assert (together.steps < 400).all()
    alone = search(5, 2, only=[3], **options)  # type: ignore[arg-type]
    assert torch.equal(together.values[6:8], alone.values)
    assert together.steps[6:8].tolist() == alone.steps.tolist()


def test_retiring_saves_passes() -> None:
    lasting, retiring = Bowl(), Bowl()
    search(5, bowl=lasting, steps=400, noise=False)
    found = search(5, bowl=retiring, steps=400, noise=False, patience=50)
    assert retiring.ledger.total.queries < lasting.ledger.total.queries / 2
    assert retiring.ledger.total.queries == int(found.steps.sum())
    assert (found.losses < 0.01).all()


def test_a_row_that_has_enough_retires_at_the_next_look() -> None:
    options = {"steps": 400, "noise": False, "keep": "best"}
    whole, found = search(5, 2, **options), search(5, 2, enough=0.5, **options)  # type: ignore[arg-type]
    assert (found.losses <= 0.5).all()
    assert (found.losses > whole.losses).all()
    assert set((found.steps % LOOK_EVERY).tolist()) == {1}
    before = (found.steps - 1) // LOOK_EVERY - 1  # the look before the last one still saw too much
    assert (found.history.gather(1, before[:, None]) > 0.5).all()
    alone = search(5, 2, only=[3], enough=0.5, **options)  # type: ignore[arg-type]
    assert torch.equal(found.values[6:8], alone.values)
    assert found.steps[6:8].tolist() == alone.steps.tolist()


def test_the_best_state_is_kept() -> None:
    """A step that is far too large: the last state is worse than one before."""
    machine, chosen = runtime(), cases(2)
    rows = make_rows(chosen, standard_normal(chosen, (2, 3), machine))
    engine = {
        keep: RowSearch(objective=Bowl(), optimizer=RowAdam(learning_rate=3.0), steps=7, keep=keep)  # type: ignore[arg-type]
        for keep in ("best", "last")
    }
    best, last = (engine[keep].run(rows, Ledger(), machine) for keep in ("best", "last"))
    bowl = Bowl()(best.values, rows.constants, torch.empty(4, 0))
    torch.testing.assert_close(bowl, best.losses)
    assert (best.losses <= last.losses).all()
    assert (best.losses < last.losses).any()


def test_the_constraint_holds_after_every_step() -> None:
    seen: list[Tensor] = []

    def objective(values: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        seen.append(values.detach())
        return -values.sum(dim=1)

    machine, chosen = runtime(), cases(1)
    rows = make_rows(chosen, torch.full((1, 2, 3), 2.0))
    engine = RowSearch(
        objective=objective, optimizer=RowAdam(learning_rate=0.5), steps=9,
        constraint=lambda values, starts: clamp_box(values, starts - 1, starts + 1),
    )  # fmt: skip
    found = engine.run(rows, Ledger(), machine)
    assert all(bool((values <= 3).all()) for values in seen)
    assert torch.equal(found.values, torch.full((2, 3), 3.0))


def test_counts_equal_the_analytic_number() -> None:
    bowl = Bowl(passes=2)
    search(3, 3, steps=7, tile=4, bowl=bowl)
    each = Spending(queries=3 * 7 * 2, gradients=3 * 7 * 2)
    assert bowl.ledger.cases == {case.id: each for case in cases(3)}
    assert bowl.ledger.shared == Spending()


def test_a_budget_leaves_what_was_found() -> None:
    bowl = Bowl(Ledger(budget=Budget(queries=4 * 10 + 3)))
    found = search(3, 2, bowl=bowl)
    assert not found.complete
    assert found.statuses == (RowStatus.STOPPED,) * 4 + (RowStatus.WAITING,) * 2
    assert found.steps.tolist() == [10] * 4 + [0] * 2
    reference = search(3, 2, steps=10)
    assert torch.equal(found.values[:4], reference.values[:4])


def test_without_steps_the_starts_come_back() -> None:
    found = search(1, steps=0)
    assert torch.equal(found.values, standard_normal(cases(1), (2, 3), runtime())[0])
    assert found.complete


def test_rows_that_leave_the_finite_numbers_fail_and_the_others_go_on() -> None:
    def objective(values: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        losses = Bowl()(values, rows, numbers)
        return torch.where(rows["labels"] == 1, torch.log(losses - losses - 1), losses)

    machine, chosen = runtime(), cases(3)
    rows = make_rows(chosen, standard_normal(chosen, (2, 3), machine))
    found = RowSearch(objective=objective, optimizer=RowAdam(learning_rate=0.2), steps=200).run(rows, Ledger(), machine)
    assert [status is RowStatus.FAILED for status in found.statuses] == [False, False, True, True, False, False]
    assert found.steps[2:4].tolist() == [1, 1]
    clean = search(3, steps=200, noise=False)
    assert torch.equal(found.values[[0, 1, 4, 5]], clean.values[[0, 1, 4, 5]])
    given_back: list[Reconstruction] = []
    with pytest.raises(CaseFailed, match="class-1") as caught:
        given_back.extend(reconstructions(chosen, found, found.values, -found.losses))
    assert [item.case.id for item in given_back] == ["class-0", "class-2"]
    assert "finite" in caught.value.reasons["class-1"]


# rows and cases -------------------------------------------------------------------------------------


def test_draws_come_in_blocks_from_each_rows_own_stream() -> None:
    machine, chosen = runtime(), cases(2)
    draw, again = (normal_draws(chosen, 2, 5, machine) for _ in range(2))
    first, second = draw(3, BLOCK), draw(3, BLOCK)
    again(0, BLOCK)
    assert torch.equal(again(3, BLOCK), first)
    assert not torch.equal(first, second)
    assert not torch.equal(again(2, BLOCK), first)


def test_constants_follow_their_rows() -> None:
    chosen = cases(2)
    rows = make_rows(chosen, torch.zeros(2, 3, 1), constants={"mask": torch.tensor([[[1.0]], [[2.0]]])})
    assert rows.constants["mask"].flatten().tolist() == [1, 1, 1, 2, 2, 2]
    assert rows.constants["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.owners == ["class-0"] * 3 + ["class-1"] * 3


@given(st.integers(1, 20), st.integers(1, 7))
def test_tiles_give_back_every_row_once(n: int, tile: int) -> None:
    sizes, values = [], torch.arange(n, dtype=torch.float32)

    def double(chunk: Tensor) -> Tensor:
        sizes.append(len(chunk))
        return chunk * 2

    assert torch.equal(tiled(double, tile, values), values * 2)
    assert set(sizes) == {tile}


def test_scores_are_zero_where_the_budget_ended() -> None:
    ledger = Ledger(budget=Budget(queries=5))

    def score(values: Tensor) -> Tensor:
        ledger.charge(queries=len(values))
        return values

    values, owners = torch.ones(7), ["a"] * 7
    scores, enough = score_rows(score, 2, values, ledger=ledger, owners=owners)
    assert (scores.tolist(), enough) == ([1, 1, 1, 1, 0, 0, 0], False)
    assert ledger.total.queries == 4


def found_of(statuses: Sequence[RowStatus]) -> Found:
    n = len(statuses)
    return Found(
        values=torch.zeros(n, 1), losses=torch.zeros(n), steps=torch.zeros(n, dtype=torch.int64),
        statuses=tuple(statuses), history=torch.tensor([[1.0, torch.nan], [3.0, 5.0]]).repeat(n // 2, 1),
    )  # fmt: skip


def test_reconstructions_are_sorted_cut_and_leave_out_failed_rows() -> None:
    found = found_of([RowStatus.DONE, RowStatus.DONE, RowStatus.FAILED, RowStatus.DONE])
    scores = torch.tensor([0.1, 0.9, 0.8, 0.3])
    samples = torch.arange(4.0)[:, None]
    first, second = reconstructions(cases(2), found, samples, scores, latents=samples)
    assert first.samples.flatten().tolist() == [1, 0]
    assert second.samples.flatten().tolist() == [3]
    assert first.history == {"loss": [2.0, 5.0]}
    (cut, _) = reconstructions(cases(2), found, samples, scores, keep=1)
    assert cut.samples.flatten().tolist() == [1]


def test_what_the_budget_stopped_is_partial_and_told() -> None:
    found = found_of([RowStatus.STOPPED, RowStatus.WAITING, RowStatus.WAITING, RowStatus.WAITING])
    given_back: list[Reconstruction] = []
    with pytest.raises(BudgetExceeded, match="during the search"):
        given_back.extend(reconstructions(cases(2), found, torch.zeros(4, 1), torch.zeros(4)))
    assert [(item.case.id, item.complete, len(item.scores)) for item in given_back] == [("class-0", False, 1)]


def test_rows_are_described() -> None:
    rows = Rows(starts=torch.zeros(2, 1), owners=["a", "b"])
    assert rows.draw is None
    assert dict(rows.constants) == {}
