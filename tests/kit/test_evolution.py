"""Populations: the operators against loops in float64, and the search's independence, accounting, budget, failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from micore.contracts import Case
from micore.kit.case_rows import make_rows, standard_normal, uniform_draws
from micore.kit.evolution import (
    Breeding,
    Differential,
    Genetic,
    PopulationSearch,
    ask_members,
    crossover,
    difference_steps,
    likelihood_share,
    other_members,
    proportional_parents,
    uniform_mutation,
)
from micore.kit.search import Found, Rows, RowStatus
from micore.runtime import Random, Runtime
from micore.threat import Budget, Ledger, Spending

SIZE, DIMS = 6, 3
GOAL = torch.tensor([1.0, -1.0, 2.0])


def runtime(tile: int = 4) -> Runtime:
    return Runtime(device=torch.device("cpu"), tile=tile)


def cases(n: int) -> list[Case]:
    return [Case(id=f"class-{label}", goal="class", label=label) for label in range(n)]


def genetic() -> Genetic:
    return Genetic(reach=0.5, mutation_rate=0.3)


def differential() -> Differential:
    return Differential(scale=lambda _: 0.3, pull=0.1, pairs=2)


BOTH = pytest.mark.parametrize("breeding", [genetic(), differential()], ids=["genetic", "differential"])
ASKED = {"genetic": SIZE - 1, "differential": SIZE}


def asked(breeding: Breeding) -> int:
    return ASKED[type(breeding).__name__.lower()]


class Bowl:
    """Squared distance to a goal per label; charges a ledger as a target would, and breaks for some labels."""

    def __init__(self, budget: int | None = None, broken: Sequence[int] = (), after: int = 0) -> None:
        self.ledger = Ledger(budget=Budget(queries=budget))
        self.broken, self.after = broken, after
        self.sizes: list[int] = []

    def __call__(self, members: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        self.ledger.charge(queries=len(members))
        self.sizes.append(len(members))
        losses = (members - GOAL * (rows["labels"][:, None] + 1)).square().sum(dim=1)
        wrong = torch.isin(rows["labels"], torch.tensor(self.broken)) if len(self.sizes) > self.after else None
        return losses if wrong is None else losses.masked_fill(wrong, torch.nan)


def start_rows(chosen: Sequence[Case], breeding: Breeding, machine: Runtime, restarts: int = 1) -> Rows:
    starts = standard_normal(chosen, (restarts, SIZE, DIMS), machine)
    return make_rows(chosen, starts, uniform_draws(chosen, restarts, breeding.n_numbers(SIZE, DIMS), machine))


def search(
    breeding: Breeding, n_cases: int, *, restarts: int = 1, generations: int = 8, tile: int = 4,
    only: Sequence[int] | None = None, bowl: Bowl | None = None, known: Tensor | None = None, **options: object,
) -> Found:  # fmt: skip
    machine, chosen = runtime(tile), [case for case in cases(n_cases) if only is None or case.label in only]
    bowl = bowl or Bowl()
    engine = PopulationSearch(score=bowl, breeding=breeding, generations=generations, **options)  # type: ignore[arg-type]
    return engine.run(start_rows(chosen, breeding, machine, restarts), bowl.ledger, machine, known)


# operators --------------------------------------------------------------------------------------------------


def test_parents_are_drawn_in_proportion_to_their_probability() -> None:
    probabilities = torch.tensor([[0.5, 0.2, 0.3], [0.0, 0.9, 0.1]])
    throws = (torch.arange(10_000) + 0.5).expand(2, -1) / 10_000
    parents = proportional_parents(-(probabilities * 0.01).log(), throws)
    shares = torch.stack([parents.eq(member).float().mean(dim=1) for member in range(3)], dim=1)
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=2e-4)


def test_parents_of_tiny_probability_are_still_compared() -> None:
    """exp(-200) underflows in float32, and the second is e times as probable as the first."""
    parents = proportional_parents(torch.tensor([[201.0, 200.0]]), torch.linspace(0, 0.999, 1000)[None])
    assert parents.float().mean().item() == pytest.approx(math.e / (1 + math.e), abs=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_the_better_parent_gives_more(first: float, second: float) -> None:
    share = likelihood_share(-torch.tensor(first).log(), -torch.tensor(second).log()).item()
    assert share == pytest.approx(first / (first + second), rel=1e-4)
    assert likelihood_share(torch.tensor(5.0), torch.tensor(5.0)).item() == 0.5
    assert likelihood_share(torch.tensor(math.inf), torch.tensor(math.inf)).item() == 0.5


def test_crossover_and_mutation_equal_a_loop_over_genes() -> None:
    rng = Random(1)
    first, second, mixing, mutating, amounts = (rng.uniform((2, 5, 4)) for _ in range(5))
    share, reach = rng.uniform((2, 5)), torch.tensor([0.1, 0.2, 0.3, 0.4])
    born = uniform_mutation(crossover(first, second, share, mixing), reach, 0.4, mutating, amounts)
    for row in range(2):
        for child in range(5):
            for gene in range(4):
                here = row, child, gene
                from_first = mixing[here] < share[row, child]
                expected = float(first[here]) if from_first else float(second[here])
                if mutating[here] < 0.4:
                    expected += float(reach[gene]) * (2 * float(amounts[here]) - 1)
                assert born[here].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_whole_share_takes_one_parent_alone(share: float) -> None:
    first, second = torch.ones(1, 2, 50), torch.zeros(1, 2, 50)
    born = crossover(first, second, torch.full((1, 2), share), Random(0).uniform((1, 2, 50)))
    assert born.unique().tolist() == [share]


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 9), st.integers(0, 100))
def test_others_are_others(size: int, seed: int) -> None:
    throws = Random(seed).uniform((2, size, 40, 2))
    throws[0, :, 0] = 1 - 2**-24  # the largest number that is drawn
    pairs = other_members(throws)
    own = torch.arange(size)[None, :, None]
    assert pairs.min() >= 0
    assert pairs.max() < size
    for one, other in ((pairs[..., 0], pairs[..., 1]), (pairs[..., 0], own), (pairs[..., 1], own)):
        assert (one != other).all()


def test_all_others_are_equally_likely() -> None:
    pairs = other_members(Random(0).uniform((1, 4, 12_000, 2)))[0, 2]
    codes, counts = (pairs[:, 0] * 4 + pairs[:, 1]).unique(return_counts=True)
    assert len(codes) == 6
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000)


def test_differences_equal_a_loop_over_members() -> None:
    rng = Random(2)
    members, best = rng.normal((2, 5, 3)), rng.normal((2, 3))
    pairs = other_members(rng.uniform((2, 5, 4, 2)))
    moved = difference_steps(members, best, pairs, pull=0.02, scale=0.1)
    wide, goal = members.double(), best.double()
    for row in range(2):
        for member in range(5):
            expected = wide[row, member] + 0.02 * (goal[row] - wide[row, member])
            for first, second in pairs[row, member].tolist():
                expected = expected + 0.1 * (wide[row, first] - wide[row, second])
            torch.testing.assert_close(moved[row, member].double(), expected, rtol=0, atol=1e-5)


# breeding ---------------------------------------------------------------------------------------------------


def test_the_elite_stays_and_children_come_from_the_box_of_their_parents() -> None:
    breeding = Genetic(reach=0.0, mutation_rate=1.0)
    members, losses = Random(3).normal((2, SIZE, DIMS)), Random(4).uniform((2, SIZE))
    numbers = Random(5).uniform((2, breeding.n_numbers(SIZE, DIMS)))
    children = breeding.propose(members, losses, numbers, 0)
    assert children.shape == (2, SIZE - 1, DIMS)
    assert all(
        torch.isin(children[row, :, gene], members[row, :, gene]).all() for row in (0, 1) for gene in range(DIMS)
    )
    following, known = breeding.settle(members, losses, children, losses[:, 1:] + 1)
    assert torch.equal(following[:, 0], members[torch.arange(2), losses.argmin(dim=1)])
    assert torch.equal(known[:, 0], losses.min(dim=1).values)
    assert torch.equal(following[:, 1:], children)


def test_a_member_makes_way_only_for_a_better_one() -> None:
    breeding, members = differential(), torch.zeros(1, 4, 2)
    rivals, losses = torch.ones(1, 4, 2), torch.tensor([[1.0, 2.0, 3.0, torch.inf]])
    answers = torch.tensor([[0.5, 2.0, torch.inf, 9.0]])  # better, equal, worse, the first finite one
    following, known = breeding.settle(members, losses, rivals, answers)
    assert following[0, :, 0].tolist() == [1, 0, 0, 1]
    assert known.tolist() == [[0.5, 2.0, 3.0, 9.0]]


# search -----------------------------------------------------------------------------------------------------


@BOTH
def test_it_comes_near_the_bottom_of_every_row(breeding: Breeding) -> None:
    found = search(breeding, 3, generations=150)
    assert found.complete
    assert (found.losses < 0.2).all()
    distances = (found.values - GOAL * torch.arange(1, 4)[:, None]).square().sum(dim=1)
    torch.testing.assert_close(distances, found.losses)


@BOTH
def test_the_best_never_gets_worse(breeding: Breeding) -> None:
    history = search(breeding, 2, restarts=2, generations=30).history
    assert history.shape == (4, 31)
    assert all((later <= earlier).all() for earlier, later in pairwise(history.unbind(1)))


@BOTH
def test_every_pass_has_the_same_shape_and_every_question_is_counted(breeding: Breeding) -> None:
    bowl = Bowl()
    search(breeding, 3, restarts=2, generations=5, bowl=bowl)
    assert set(bowl.sizes) == {4}
    each = 2 * (SIZE + 5 * asked(breeding))
    assert bowl.ledger.cases == {case.id: Spending(queries=each) for case in cases(3)}
    assert bowl.ledger.total.queries == 3 * each


@BOTH
def test_starts_that_are_known_cost_nothing(breeding: Breeding) -> None:
    whole, bowl = search(breeding, 2), Bowl()
    starts = start_rows(cases(2), breeding, runtime())
    known = (starts.starts - GOAL * torch.arange(1, 3)[:, None, None]).square().sum(dim=2)
    known[1, 2:4] = torch.nan  # the target was not asked about these two
    found = search(breeding, 2, bowl=bowl, known=known)
    assert torch.equal(found.values, whole.values)
    assert bowl.ledger.cases["class-0"].queries == 8 * asked(breeding)
    assert bowl.ledger.cases["class-1"].queries == 8 * asked(breeding) + 2


@BOTH
@settings(max_examples=15, deadline=None)
@given(n_cases=st.integers(1, 5), restarts=st.integers(1, 3), data=st.data())
def test_a_case_does_not_depend_on_the_others(
    breeding: Breeding, n_cases: int, restarts: int, data: st.DataObject
) -> None:
    label = data.draw(st.integers(0, n_cases - 1))
    together = search(breeding, n_cases, restarts=restarts, enough=0.5)
    alone = search(breeding, n_cases, restarts=restarts, only=[label], enough=0.5)
    rows = slice(label * restarts, (label + 1) * restarts)
    assert torch.equal(together.values[rows], alone.values)
    assert torch.equal(together.losses[rows], alone.losses)
    assert together.steps[rows].tolist() == alone.steps.tolist()


@BOTH
def test_a_row_that_has_enough_asks_no_more(breeding: Breeding) -> None:
    bowl = Bowl()
    found = search(breeding, 4, generations=200, enough=0.3, bowl=bowl)
    assert (found.losses <= 0.3).all()
    assert (found.steps < 200).all()
    assert len(set(found.steps.tolist())) > 1
    spent = {case.id: SIZE + asked(breeding) * int(found.steps[row]) for row, case in enumerate(cases(4))}
    assert {name: spending.queries for name, spending in bowl.ledger.cases.items()} == spent
    for row, steps in enumerate(found.steps.tolist()):
        trace = found.history[row]
        assert trace[: steps + 1].isfinite().all()
        assert trace[steps + 1 :].isnan().all()
        assert steps == 0 or trace[steps - 1] > 0.3


def test_a_start_that_is_enough_asks_nothing() -> None:
    bowl = Bowl()
    known = torch.full((2, SIZE), 0.1)
    found = search(genetic(), 2, bowl=bowl, known=known, enough=0.2)
    assert bowl.ledger.total.queries == 0
    assert found.steps.tolist() == [0, 0]
    assert torch.equal(found.values, start_rows(cases(2), genetic(), runtime()).starts[:, 0])


@BOTH
@pytest.mark.parametrize("budget", [1, 3, 4, 11, 30, 63, 100])
def test_a_budget_ends_the_search_cleanly(breeding: Breeding, budget: int) -> None:
    bowl = Bowl(budget)
    found = search(breeding, 3, bowl=bowl, generations=50)
    assert budget - 4 < bowl.ledger.total.queries <= budget
    assert not found.complete
    for row, status in enumerate(found.statuses):
        begun = f"class-{row}" in bowl.ledger.cases
        assert status == (RowStatus.STOPPED if begun else RowStatus.WAITING)
        assert found.losses[row].isfinite().item() == begun
        if begun:
            distance = (found.values[row] - GOAL * (row + 1)).square().sum()
            torch.testing.assert_close(distance, found.losses[row])


def test_the_best_of_a_generation_cut_short_is_kept() -> None:
    """With known starts far away, any answer at all is the best; the budget leaves the first tile of it."""
    bowl = Bowl(4)
    found = search(genetic(), 2, bowl=bowl, known=torch.full((2, SIZE), 1e6))
    assert found.losses[0] < 1e6
    assert found.losses[1] == 1e6
    assert found.statuses == (RowStatus.STOPPED,) * 2
    assert found.steps.tolist() == [0, 0]


@BOTH
@pytest.mark.parametrize("after", [0, 30])
def test_a_row_without_finite_losses_fails_alone(breeding: Breeding, after: int) -> None:
    bowl = Bowl(broken=[1], after=after)
    found = search(breeding, 3, bowl=bowl, generations=40)
    assert found.statuses == (RowStatus.DONE, RowStatus.FAILED, RowStatus.DONE)
    assert found.complete
    assert found.steps[1] < 40
    sound = search(breeding, 3, generations=40)
    assert torch.equal(found.values[[0, 2]], sound.values[[0, 2]])


def test_a_member_that_breaks_the_target_is_the_worst() -> None:
    def half(members: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        losses = Bowl()(members, rows)
        return torch.where(members[:, 0] > 0.5, torch.nan, losses)

    chosen, machine = cases(1), runtime()
    engine = PopulationSearch(score=half, breeding=differential(), generations=60)
    found = engine.run(start_rows(chosen, differential(), machine), Ledger(), machine)
    assert found.statuses == (RowStatus.DONE,)
    assert found.values[0, 0] <= 0.5
    assert found.losses[0] < 0.5


@BOTH
def test_everything_that_is_asked_lies_inside_the_constraint(breeding: Breeding) -> None:
    seen = []

    def score(members: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        seen.append(members)
        return Bowl()(members, rows)

    chosen, machine = cases(2), runtime()
    rows = start_rows(chosen, breeding, machine)
    engine = PopulationSearch(
        score=score, breeding=breeding, generations=10, constraint=lambda members: members.clamp(-0.5, 0.5)
    )
    engine.run(rows, Ledger(), machine)
    first = -(-2 * SIZE // machine.tile)
    assert torch.cat(seen[first:]).abs().max() <= 0.5


def test_differences_shrink_with_the_generations() -> None:
    asked_for: list[int] = []

    def scale(generation: int) -> float:
        asked_for.append(generation)
        return 0.1

    search(Differential(scale=scale, pull=0.0), 1, generations=4)
    assert asked_for == [0, 1, 2, 3]


def test_without_generations_the_best_start_comes_back() -> None:
    machine, chosen = runtime(), cases(2)
    rows = make_rows(chosen, standard_normal(chosen, (1, SIZE, DIMS), machine))
    bowl = Bowl()
    found = PopulationSearch(score=bowl, breeding=genetic(), generations=0).run(rows, bowl.ledger, machine)
    losses, enough = ask_members(Bowl(), rows.starts, rows, Ledger(), machine)
    assert enough
    assert torch.equal(found.losses, losses.min(dim=1).values)
    assert found.statuses == (RowStatus.DONE,) * 2
    with pytest.raises(ValueError, match="random numbers"):
        PopulationSearch(score=bowl, breeding=genetic(), generations=1).run(rows, bowl.ledger, machine)


@BOTH
def test_a_run_can_be_repeated_and_restarts_differ(breeding: Breeding) -> None:
    one, again = (search(breeding, 2, restarts=2, generations=5) for _ in range(2))
    assert torch.equal(one.values, again.values)
    assert not torch.equal(one.values[0], one.values[1])
