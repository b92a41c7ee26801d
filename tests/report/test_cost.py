"""What an attack cost: by part, by case, for each success, and what it saw of itself on the way."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from micore.contracts import Case, Reconstruction, Snapshot
from micore.report import document, render
from micore.report.progress import MOST_POINTS, progress
from micore.runs import Run
from tests.run_directories import NumberModality, figures, make_run, manifest, measurement

Make = Callable[..., Run]

LEDGER = {
    "preparation": {"queries": 30, "gradients": 5}, "shared": {"queries": 40, "gradients": 5},
    "cases": {"queries": 160, "gradients": 20}, "total": {"queries": 200, "gradients": 25},
}  # fmt: skip
SPENT = [30, 50, 80]
STANDS = [[10, 20], [20, 40], [30]]
HISTORY = [{"loss": [3.0, 2.0, 1.0]}, {"loss": [5.0, 4.0]}, {"loss": [math.nan, 0.0], "searched": [7.0]}]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a run of three cases: right in full, in part, and not at all, with two earlier stands."""

    def one(per_case: dict[str, float] | None = None, *, earlier: bool = True, **changes: Any) -> Run:
        values = {"class-0": 1.0, "class-1": 0.6, "class-2": 0.0} if per_case is None else per_case
        content = manifest(n_cases=3, ledger=LEDGER, timings={"attack_s": 6.0}, **changes)
        items = figures(per_case=values)
        if earlier:
            items += [
                measurement("snapshot-0", 0.1, (0.0, 0.2), per_case={"class-0": 0.4, "class-1": 0.0, "class-2": 0.0}),
                measurement("snapshot-1", 0.5, (0.4, 0.6), per_case={"class-0": 1.0, "class-1": 0.0, "class-2": 0.0}),
            ]
        run = make_run(tmp_path / "run", content, items)
        for label, (spent, looks, history) in enumerate(zip(SPENT, STANDS, HISTORY, strict=True)):
            row = {**run.rows()[f"class-{label}"], "spending": {"queries": spent, "gradients": label}}
            item = Reconstruction(
                case=Case(id=row["id"], goal="class", label=label), samples=torch.zeros(2, 1), scores=torch.zeros(2),
                history=history,
                snapshots=[Snapshot(queries=n, samples=torch.ones(2, 1)) for n in looks] if earlier else (),
            )  # fmt: skip
            run.write_case(row, item, NumberModality())
        return run

    return one


def test_parts_add_up(make: Make) -> None:
    parts = document(make())["cost"]["parts"]
    assert [row["part"] for row in parts] == ["preparation", "attacking", "total"]
    assert [row["queries"] for row in parts] == [30, 170, 200]
    assert [row["gradients"] for row in parts] == [5, 20, 25]
    assert [row["seconds"] for row in parts] == [30.0, 6.0, 36.0]


def test_a_case_has_its_cost_and_its_first_success(make: Make) -> None:
    rows = document(make())["cost"]["cases"]
    assert [(row["id"], row["queries"], row["gradients"]) for row in rows] == [
        ("class-0", 30, 0), ("class-1", 50, 1), ("class-2", 80, 2),
    ]  # fmt: skip
    assert [row["success"] for row in rows] == [1.0, 0.6, 0.0]
    # at its second stand; at its end, since no stand had most samples right; never
    assert [row["first_success"] for row in rows] == [20, 50, None]


def test_without_earlier_stands_nothing_is_said_of_first_successes(make: Make) -> None:
    run = make(earlier=False)
    assert {row["first_success"] for row in document(run)["cost"]["cases"]} == {None}
    assert "First success:" not in render(run, "markdown")


def test_queries_are_divided_by_successes(make: Make) -> None:
    found = document(make())["cost"]["success"]
    assert (found["name"], found["cases"], found["successes"]) == ("accuracy@1", 3, 1.6)
    assert found["each"] == {"queries": 125.0, "gradients": 15.625, "seconds": 22.5}
    # prior samples are right in a tenth of three cases anyway: 1.3 successes are the attack's
    assert found["floor"] == "prior-samples"
    assert found["beyond_floor"]["queries"] == pytest.approx(200 / 1.3, abs=1e-3)
    assert found["reason"] is None


def test_cases_that_the_figure_is_not_about_cost_nothing_but_failed_ones_do(make: Make) -> None:
    run = make({"class-0": 1.0, "class-1": 1.0})
    assert document(run)["cost"]["success"]["each"]["queries"] == (200 - 80) / 2
    row = run.rows()["class-2"]
    run.write_case({**row, "status": "failed", "error": "it broke"}, None, NumberModality())
    assert document(run)["cost"]["success"]["each"]["queries"] == 200 / 2


def test_no_success_has_no_price(make: Make) -> None:
    run = make(dict.fromkeys(("class-0", "class-1", "class-2"), 0.0))
    found = document(run)["cost"]["success"]
    assert (found["each"], found["beyond_floor"]) == (None, None)
    assert "**cost of a success**: n/a: nothing was recovered by this figure" in render(run, "markdown")


def test_successes_below_the_floor_have_a_price_but_none_beyond_it(make: Make) -> None:
    text = render(make({"class-0": 0.2, "class-1": 0.0, "class-2": 0.0}), "markdown")
    assert "1,000.0 queries" in text
    assert "beyond what prior-samples gives anyway: n/a, there is none" in text


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (figures("down", per_case={"class-0": 1.0}), "no figure of this run is a share"),
        (figures(), "the figure was not measured case by case"),
        ([], "no figure of this run is a share"),
    ],
)
def test_why_a_success_has_no_price(tmp_path: Path, items: Any, reason: str) -> None:
    found = document(make_run(tmp_path / "run", measurements=items))["cost"]["success"]
    assert found["each"] is None
    assert reason in found["reason"]


def test_a_run_that_did_not_end_has_no_price(tmp_path: Path) -> None:
    content = manifest()
    del content["ledger"]
    run = make_run(tmp_path / "run", content, figures(per_case={"class-0": 1.0}))
    found = document(run)["cost"]
    assert found["parts"] == []
    assert "the run did not end" in found["success"]["reason"]
    assert "## Cost" in render(run, "markdown")


def test_queries_are_told_apart_by_access_where_they_were(make: Make) -> None:
    text = render(make(queries_by_access={"label": 150, "scores": 50}), "markdown")
    assert "**queries by the access that they needed**: label=150, scores=50" in text


def test_queries_of_older_runs_are_not_told_apart(make: Make) -> None:
    run = make()
    assert document(run)["cost"]["queries_by_access"] is None
    assert "queries by the access" not in render(run, "markdown")


def test_every_rendering_has_the_costs(make: Make) -> None:
    run = make()
    text, page = render(run, "markdown"), render(run, "html")
    assert "| attacking | 170 | 20 | 6.0 s |" in text
    assert "| class-1 | done | 50 | 1 | 1.5 s | 0.600 | 50 |" in text
    assert 'aria-label="Cost by part"' in page
    assert 'aria-label="Cost by case"' in page
    assert '<td class="value" data-value="170">170</td>' in page
    rows = [row for row in csv.DictReader(io.StringIO(render(run, "csv"))) if row["evaluator"] == "cost"]
    told = {(row["name"], row["subject"]): (row["value"], row["unit"]) for row in rows}
    assert told["queries", "total"] == ("200", "samples")
    assert told["seconds", "preparation"] == ("30.0", "s")
    assert told["first_success", "case class-0"] == ("20", "queries")
    assert ("first_success", "case class-2") not in told
    assert told["queries", "each success"] == ("125.0", "samples")


def test_many_cases_show_the_dearest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", manifest(30))
    for label, row in enumerate(list(run.rows().values())):
        run.write_case({**row, "spending": {"queries": label, "gradients": 0}}, None, NumberModality())
    text = render(run, "markdown").partition("## Cost")[2]
    assert "The 20 dearest of 30 cases" in text
    assert "| class-29 | done | 29 |" in text
    assert "| class-9 | done | 9 |" not in text
    assert len(document(run)["cost"]["cases"]) == 30


# curves beside their bounds -------------------------------------------------------------------------


def test_curves_say_their_floor_their_ceiling_and_when_they_were_beyond(make: Make) -> None:
    run = make()
    (row,) = document(run)["curves"]
    assert (row["floor"]["value"], row["ceiling"]) == (0.1, {"name": "holdout", "value": 0.9})
    assert row["first_beyond_floor"] == row["points"][1]["queries"] == 200 - 160 + 20 + 40 + 80
    for format in ("markdown", "html"):
        text = render(run, format)
        assert "floor prior-samples 0.100, ceiling holdout 0.900" in text
        assert "beyond the floor from 180 queries on" in text


def test_cases_stand_beside_the_floor_and_the_ceiling_of_all(make: Make) -> None:
    run = make()
    text, page = render(run, "markdown"), render(run, "html")
    assert "| floor, all cases |  |  | prior-samples 0.100 |" in text
    assert "| ceiling, all cases |  |  | holdout 0.900 |" in text
    assert page.count("<tfoot>") == 1
    assert '<td class="value">0.100<small>prior-samples</small></td>' in page


def test_the_csv_says_what_bounds_what(make: Make) -> None:
    rows = list(csv.DictReader(io.StringIO(render(make(), "csv"))))
    assert {row["subject"]: row["role"] for row in rows if row["name"] == "accuracy@1"} == {
        "attack": "attack", "prior-samples": "floor", "wrong-label": "floor", "holdout": "ceiling",
    }  # fmt: skip


# what the attack saw of itself ----------------------------------------------------------------------


def test_progress_is_the_mean_over_the_cases_that_got_so_far(make: Make) -> None:
    (row,) = document(make())["progress"]
    assert row["name"] == "loss"  # one look is no course
    assert [(point["look"], point["value"], point["cases"]) for point in row["points"]] == [
        (1, 4.0, 2), (2, 2.0, 3), (3, 1.0, 1),
    ]  # fmt: skip
    assert [(point["low"], point["high"]) for point in row["points"]] == [(3.5, 4.5), (1.0, 3.0), (None, None)]


def test_long_courses_keep_their_ends() -> None:
    (row,) = progress([{"history": {"loss": [float(look) for look in range(1000)]}}])
    looks = [point["look"] for point in row["points"]]
    assert len(looks) == MOST_POINTS
    assert (looks[0], looks[-1]) == (1, 1000)
    assert all(point["value"] == point["look"] - 1 for point in row["points"])


def test_reports_draw_the_progress(make: Make) -> None:
    run = make()
    text, page = render(run, "markdown"), render(run, "html")
    assert "## What the attack saw of itself" in text
    assert "| loss | 1 | 4.000 \\[3.500, 4.500\\] | 2 |" in text
    assert '<h2 id="progress">' in page
    pytest.importorskip("matplotlib")
    assert re.search(
        'role="img" aria-label="loss over the attack.s looks at itself; the figures are in the table', page
    )


def test_a_run_without_a_course_has_no_section(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", measurements=figures())
    assert document(run)["progress"] == []
    assert "What the attack saw of itself" not in render(run, "markdown") + render(run, "html")
