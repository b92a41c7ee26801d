"""Runs at the same number of queries, and what is said of many differences at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from scipy import stats

from micore.contracts import Case, Reconstruction, Snapshot
from micore.errors import UsageError
from micore.kit.statistics import holm, sign_flip_test
from micore.runs import Run, compare
from micore.runs.at_budget import Stand, read_budget, stand_within
from tests.run_directories import NumberModality, make_run, manifest, measurement

Make = Callable[..., Run]
Mi = Callable[..., Result]

CLASSES = 12
WAVE = [0.05 if label % 2 else -0.05 for label in range(CLASSES)]


def per_case(mean: float) -> dict[str, float]:
    return {f"class-{label}": mean + shift for label, shift in enumerate(WAVE)}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a run with values at earlier stands, by the queries of the whole run at each, and at its end."""

    def one(name: str, total: int, end: float, stood: Mapping[int, float] | None = None, **changes: Any) -> Run:
        stood, shared = stood or {}, 12
        ledger = {**manifest()["ledger"], "total": {"queries": total, "gradients": 3}}
        items = [
            measurement("attack", end, (end - 0.05, end + 0.05), per_case=per_case(end)),
            measurement("prior-samples", 0.3, (0.25, 0.35)), measurement("holdout", 0.9, (0.85, 0.95)),
            *(measurement(f"snapshot-{index}", value, (value - 0.05, value + 0.05), per_case=per_case(value))
              for index, value in enumerate(stood.values())),
        ]  # fmt: skip
        run = make_run(tmp_path / name, manifest(CLASSES, ledger=ledger, **changes), items)
        for label, row in enumerate(list(run.rows().values())):
            item = Reconstruction(
                case=Case(id=row["id"], goal="class", label=label), samples=torch.zeros(2, 1), scores=torch.zeros(2),
                snapshots=[Snapshot(queries=(at - shared) // CLASSES, samples=torch.ones(2, 1)) for at in stood],
            )  # fmt: skip
            spending = {"queries": (total - shared) // CLASSES, "gradients": 0}
            run.write_case({**row, "spending": spending}, item, NumberModality())
        return run

    return one


def values(runs: Sequence[Run], **options: Any) -> list[float | None]:
    rows = compare(runs, **options).rows
    return [entry.value if entry else None for entry in rows[0].entries] if rows else []


# stands ---------------------------------------------------------------------------------------------


def test_the_last_stand_within_a_budget_counts_everything_that_was_spent(make: Make) -> None:
    run = make("a", 252, 0.8, {72: 0.2, 132: 0.5})
    assert stand_within(run, 71) is None
    assert stand_within(run, 72) == Stand(queries=72, index=0)
    assert stand_within(run, 131) == Stand(queries=72, index=0)
    assert stand_within(run, 251) == Stand(queries=132, index=1)
    assert stand_within(run, 252) == Stand(queries=252)


@pytest.mark.parametrize(("text", "budget"), [("equal", "equal"), ("500", 500)])
def test_budgets_are_read(text: str, budget: int | str) -> None:
    assert read_budget(text) == budget


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "some", ""])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no budget"):
        read_budget(text)


# comparisons ----------------------------------------------------------------------------------------


def test_at_an_equal_budget_the_dearer_run_is_taken_as_it_stood(make: Make) -> None:
    runs = make("cheap", 132, 0.6), make("dear", 252, 0.8, {72: 0.2, 132: 0.4})
    assert values(runs) == [0.6, 0.8]
    assert values(runs, at_budget="equal") == [0.6, 0.4]
    found = compare(runs, at_budget="equal")
    entry = found.rows[0].entries[1]
    assert entry is not None
    assert entry.difference == pytest.approx(-0.2)
    assert entry.classes == CLASSES
    assert found.at_budget == 132
    assert [run.compared_queries for run in found.runs] == [132, 132]
    assert [run.queries for run in found.runs] == [132, 252]
    assert found.warnings == ()
    assert "| 252 | 3 | 132 queries |" in found.text()


def test_beating_the_floor_is_asked_at_the_budget_as_well(make: Make) -> None:
    runs = make("a", 252, 0.8, {72: 0.2, 132: 0.5}), make("b", 252, 0.8, {72: 0.2, 132: 0.5})
    assert [[entry.beats_floor for entry in compare(runs, at_budget=at).rows[0].entries if entry] for at in (72, 132)]\
        == [[False, False], [True, True]]  # fmt: skip


def test_runs_of_other_budgets_are_warned_of(make: Make) -> None:
    runs = make("a", 132, 0.6), make("b", 252, 0.8)
    assert compare(runs).warnings == (
        "The runs spent different numbers of queries (a 132, b 252); --at-budget equal compares them at the same.",
    )
    assert compare([make("c", 252, 0.6), make("d", 264, 0.6)]).warnings == ()


def test_a_run_without_a_stand_within_the_budget_is_left_out_with_a_warning(make: Make) -> None:
    runs = make("a", 132, 0.6), make("b", 252, 0.8), make("c", 132, 0.5)
    found = compare(runs, at_budget="equal")
    assert [entry.value if entry else None for entry in found.rows[0].entries] == [0.6, None, 0.5]
    assert found.warnings == ("b has no stand within 132 queries: none of its figures is compared.",)
    assert "| nothing |" in found.text()


def test_a_run_that_is_taken_long_before_the_budget_is_warned_of(make: Make) -> None:
    found = compare([make("a", 252, 0.6), make("b", 372, 0.8, {72: 0.2})], at_budget="equal")
    assert "b is compared as it stood after 72 queries, the last of its stands within 252" in found.warnings[0]


def test_an_equal_budget_of_nothing_is_none(make: Make) -> None:
    free = {**manifest()["ledger"], "total": {"queries": 0, "gradients": 0}}
    run = make("a", 132, 0.6)
    run.update(ledger=free)
    with pytest.raises(UsageError, match="sent no queries"):
        compare([run, make("b", 252, 0.8)], at_budget="equal")


def test_the_command_line_compares_at_a_budget(make: Make, mi: Mi) -> None:
    places = [str(run.directory) for run in (make("a", 132, 0.6), make("b", 252, 0.8, {72: 0.2, 132: 0.4}))]
    document = json.loads(mi("compare", *places, "--at-budget", "equal", "--json").stdout)
    assert (document["at_budget"], document["rows"][0]["entries"][1]["value"]) == (132, 0.4)
    assert json.loads(mi("compare", *places, "--at-budget", "200", "--json").stdout)["at_budget"] == 200
    assert mi("compare", *places, "--at-budget", "much").exit_code == UsageError.exit_code


# many differences at once ---------------------------------------------------------------------------


def test_corrected_p_values_are_those_of_an_independent_implementation() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert holm(p_values) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])  # by hand, from Holm (1979)
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@pytest.mark.parametrize("n", [3, 8, 12, 20])
def test_sign_flips_are_those_of_scipy(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.4, 1, n)

    def mean(values: Any, axis: int) -> Any:
        return np.mean(values, axis=axis)

    expected = stats.permutation_test(
        (differences,), mean, permutation_type="samples", n_resamples=np.inf if n <= 12 else 20_000, rng=0
    ).pvalue  # fmt: skip
    assert sign_flip_test(differences, rng=0) == pytest.approx(expected, abs=1e-12 if n <= 12 else 0.02)


def test_few_pairs_cannot_give_a_small_p_value() -> None:
    assert sign_flip_test([1.0] * 4, rng=0) == 2 / 16
    assert sign_flip_test([0.0, 0.0], rng=0) == 1.0
    assert sign_flip_test([0.1] * 30, rng=0) == 1 / 10_000


@pytest.mark.parametrize("bad", [[], [float("nan")], [[1.0, 2.0]]])
def test_what_cannot_be_tested_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="differences"):
        sign_flip_test(bad, rng=0)


def test_a_difference_that_one_question_shows_may_not_be_shown_by_many(tmp_path: Path) -> None:
    """Ten figures of nine classes: the one that differs is lost among the others, and the sentence about it is not."""
    base = {f"class-{label}": 0.5 for label in range(9)}
    better = {name: 0.7 + 0.01 * place for place, name in enumerate(base)}
    noise = np.random.default_rng(0).normal(0, 0.1, (10, 9))

    def run(name: str, first: Mapping[str, float], sign: int) -> Run:
        items = [measurement("prior-samples", 0.1), measurement("attack", 0.5, per_case=first)]
        items += [
            measurement("attack", 0.5, name=f"other-{index}",
                        per_case=dict(zip(base, (0.5 + sign * row).tolist(), strict=True)))
            for index, row in enumerate(noise)
        ]  # fmt: skip
        return make_run(tmp_path / name, manifest(9), items)

    found = compare([run("a", base, 0), run("b", better, 1)])
    entry = found.rows[0].entries[1]
    assert entry is not None
    assert entry.p_value == 2 / 512
    assert entry.p_corrected == 11 * 2 / 512 < 0.05
    assert entry.differs(entry.p_corrected)
    others = [row.entries[1] for row in found.rows[1:]]
    assert all(other and not other.differs(other.p_corrected) for other in others)
    assert "more leakage" in found.statements[0]
    assert "p = 0.0039" in found.statements[0]
    assert "yes (p = 0.043)" in found.text()


def test_sentences_are_corrected_for_the_runs(make: Make) -> None:
    runs = [make("a", 132, 0.5), *(make(name, 132, 0.5 + step) for name, step in (("b", 0.2), ("c", 0.3)))]
    for run, shift in zip(runs[1:], (0.02, 0.03), strict=True):  # else all classes differ alike, which claims nothing
        items = run.measurements()
        uneven = {name: value + shift * place for place, (name, value) in enumerate(items[0].per_case.items())}
        run.write_measurements([measurement("attack", 0.7, per_case=uneven), *items[1:]], run.judges())
    found = compare(runs)
    assert [text.rpartition("p = ")[2].partition(")")[0] for text in found.statements] == ["0.00098", "0.00098"]
    assert all("more leakage" in text for text in found.statements)
