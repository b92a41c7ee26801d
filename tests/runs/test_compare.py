"""Runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from micore.errors import UsageError
from micore.runs import Run, compare
from tests.run_directories import JUDGE, make_run, manifest, measurement

Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a run whose classes have these values."""

    def one(
        name: str, values: list[float], *, direction: str = "up", evaluator: str = "accuracy@1234",
        n_classes: int = 12, judges: Any = None, control: bool = True, **changes: Any,
    ) -> Run:  # fmt: skip
        per_case = {f"class-{label}": value for label, value in enumerate(values)}
        mean = sum(values) / len(values)
        items = [
            measurement("attack", mean, (mean - 0.05, mean + 0.05), direction=direction, evaluator=evaluator,
                        per_case=per_case),
            measurement("prior-samples", 0.1, (0.05, 0.15), direction=direction, evaluator=evaluator),
            measurement("holdout", 0.9, (0.85, 0.95), direction=direction, evaluator=evaluator),
        ]  # fmt: skip
        return make_run(tmp_path / name, manifest(n_classes, **changes), items, judges=judges)

    return one


HIGH = [0.9, 0.8, 0.7, 0.9, 0.8, 0.7, 0.9, 0.8, 0.7, 0.9, 0.8, 0.7]
LOW = [value - 0.4 + (0.05 if index % 2 else 0.0) for index, value in enumerate(HIGH)]


def defended() -> dict[str, Any]:
    """Return a manifest's target with a defense and its cost."""
    target: dict[str, Any] = manifest()["target"]
    target["fingerprint"] = "defended-hash"
    target["card"]["defenses"] = [{"name": "blur", "config": {}}]
    target["card"]["metrics"]["holdout_accuracy"] = 0.9
    return target


def test_the_difference_is_paired_by_class(make: Make) -> None:
    found = compare([make("plain", HIGH), make("blurred", LOW, target=defended())])
    (row,) = found.rows
    first, second = row.entries
    assert first is not None
    assert second is not None
    assert first.difference is None
    assert second.difference == pytest.approx(-0.375)
    bounds = second.difference_interval
    assert bounds is not None
    assert -0.4 <= bounds.low <= -0.375 <= bounds.high <= -0.35  # far narrower than the spread of the classes
    assert second.classes == 12
    assert second.floors == {"prior-samples": 0.1}
    assert (second.ceiling, second.beats_floor) == (0.9, True)


def test_less_leakage_is_told_with_its_price(make: Make) -> None:
    found = compare([make("plain", HIGH), make("blurred", LOW, target=defended())])
    (text,) = found.statements
    assert text.startswith("blurred against plain: less leakage (accuracy@1 changes by -0.375 [")
    assert "held-out accuracy of the target 0.900 [0.851, 0.934] instead of 0.950 [0.910, 0.973] (-0.050)" in text
    assert found.warnings == ()


def test_lower_is_more_leakage_for_a_distance(make: Make) -> None:
    found = compare([make("plain", HIGH, direction="down"), make("other", LOW, direction="down")])
    assert "more leakage" in found.statements[0]
    assert "compares attacks and not defenses" in found.statements[0]


def test_an_interval_around_zero_shows_no_difference(make: Make) -> None:
    noisy = [value + (0.1 if index % 2 else -0.1) for index, value in enumerate(HIGH)]
    assert "no difference in leakage is shown" in compare([make("a", HIGH), make("b", noisy)]).statements[0]


def test_only_common_classes_are_paired(make: Make) -> None:
    found = compare([make("a", HIGH), make("b", LOW[:8], n_classes=12)])
    entry = found.rows[0].entries[1]
    assert entry is not None
    assert entry.classes == 8


def test_one_common_class_has_no_interval(make: Make) -> None:
    entry = compare([make("a", HIGH), make("b", [0.25])]).rows[0].entries[1]
    assert entry is not None
    assert entry.difference_interval is None
    assert entry.difference == pytest.approx(0.25 - HIGH[0])


def test_too_few_classes_to_show_a_difference_are_warned_of(make: Make) -> None:
    found = compare([make("a", HIGH), make("b", LOW[:5])])
    assert "Differences over 5 classes cannot be shown" in found.warnings[-1]
    assert "no difference in leakage is shown" in found.statements[0]
    assert not any("cannot be shown" in text for text in compare([make("c", HIGH), make("d", LOW[:6])]).warnings)


def test_equal_differences_of_all_classes_claim_no_certainty(make: Make) -> None:
    found = compare([make("a", [0.25] * 12), make("b", [0.5] * 12)])
    entry = found.rows[0].entries[1]
    assert entry is not None
    assert (entry.difference, entry.difference_interval) == (0.25, None)
    assert "whether leakage differs cannot be said" in found.statements[0]


def test_measurements_of_a_single_run_are_left_out(make: Make) -> None:
    found = compare([make("a", HIGH), make("b", LOW, evaluator="other@1")])
    assert found.rows == []
    assert "nothing to compare" in found.warnings[0]
    assert "Comparison of runs" in found.text()


def test_three_runs_keep_their_order_and_may_miss_a_figure(make: Make) -> None:
    found = compare([make("a", HIGH), make("b", LOW, evaluator="other@1"), make("c", LOW)])
    (row,) = found.rows
    assert [entry.run if entry else None for entry in row.entries] == ["a", None, "c"]


ATTACK = manifest()["attack"]
OTHER_JUDGE = {"evaluator-model": {**JUDGE["evaluator-model"], "fingerprint": "x"}}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"data": {**manifest()["data"], "fingerprint": "other"}}, "other data"),
        ({"access": {"granted": "label", "used": None}}, "other access was granted (label, white-box)"),
        ({"attack": {**ATTACK, "config": {"steps": 5, "loss": "poincare"}}}, "other settings (steps)"),
        ({"attack": {**ATTACK, "preset": "paper"}}, "preset paper and smoke"),
        ({"attack": {**ATTACK, "name": "other"}, "target": defended()}, "both attack and target differ"),
        ({"seed": 4}, "other seeds (4, 3)"),
        ({"overlap": {"public": {"n": 500, "equal": 5, "near": 0}}}, "b: 5 samples of public (1%) equal or resemble"),
        ({"status": "budget"}, "did not finish (status budget)"),
        ({"cases": manifest(12, 11)["cases"]}, "other cases"),
        ({"evaluator": "accuracy@9999"}, "another identity"),
        ({"judges": OTHER_JUDGE}, "judged by different models"),
    ],
)  # fmt: skip
def test_runs_that_are_not_comparable_are_warned_of(make: Make, changes: dict[str, Any], part: str) -> None:
    found = compare([make("a", HIGH), make("b", LOW, **changes)])
    assert part in "\n".join(found.warnings)
    assert len(found.rows) == 1


def test_failed_cases_are_warned_of(make: Make) -> None:
    cases = manifest(12)["cases"]
    cases[3] |= {"status": "failed", "error": "boom"}
    assert "1 cases of b failed" in "\n".join(compare([make("a", HIGH), make("b", LOW, cases=cases)]).warnings)


def test_text_has_a_row_for_each_run_and_figure(make: Make) -> None:
    text = compare([make("a", HIGH), make("b", LOW, target=defended())]).text()
    assert "| b | toy-attack | white-box | small-net | blur | 0.900 \\[0.851, 0.934\\] | 115 | 40 |" in text
    row = next(line for line in text.splitlines() if line.startswith("| accuracy@1 (up) | accuracy | b |"))
    assert "prior-samples 0.100" in row
    assert "-0.375" in row
    assert "12 classes" in row


def test_the_document_is_plain_json(make: Make) -> None:
    found = json.loads(json.dumps(compare([make("a", HIGH), make("b", LOW)]).to_dict(), allow_nan=False))
    assert found["schema"] == "micore.comparison/1"
    assert set(found) == {"schema", "runs", "rows", "warnings", "statements", "at_budget"}
    assert found["at_budget"] is None
    assert found["rows"][0]["entries"][1]["difference_interval"]["level"] == 0.95


def test_the_same_inputs_give_the_same_intervals(make: Make) -> None:
    runs = [make("a", HIGH), make("b", LOW)]
    assert compare(runs) == compare(runs)


def test_runs_of_one_name_are_told_apart_by_their_path(make: Make) -> None:
    found = compare([make("x/run", HIGH), make("y/run", LOW)])
    assert [run.id.endswith(("x/run", "y/run")) for run in found.runs] == [True, True]


def test_one_run_is_no_comparison(make: Make) -> None:
    run = make("a", HIGH)
    for runs in ([run], [run, Run.open(run.directory)]):
        with pytest.raises(UsageError, match="two or more different runs"):
            compare(runs)


# several judges -----------------------------------------------------------------------------------


def judges_of(*identities: str) -> dict[str, Any]:
    names = ["evaluator-model", "evaluator-model-2"]
    plain = JUDGE["evaluator-model"]
    return {
        name: {**plain, "fingerprint": identity * 3, "identity": identity}
        for name, identity in zip(names, identities, strict=False)
    }


def judged(tmp_path: Path, name: str, figures: dict[str, float]) -> Run:
    items = [
        item
        for identity, value in figures.items()
        for item in (
            measurement("attack", value, (value - 0.05, value + 0.05), evaluator=f"accuracy@{identity}",
                        per_case={f"class-{label}": value + label / 100 for label in range(12)}),
            measurement("prior-samples", 0.1, (0.05, 0.15), evaluator=f"accuracy@{identity}"),
        )
    ]  # fmt: skip
    return make_run(tmp_path / name, manifest(12), items, judges=judges_of(*figures))


def test_figures_of_each_judge_are_compared_with_its_own(tmp_path: Path) -> None:
    runs = judged(tmp_path, "a", {"1111": 0.6, "2222": 0.4}), judged(tmp_path, "b", {"1111": 0.7, "2222": 0.2})
    found = compare(runs)
    assert [row.evaluator for row in found.rows] == ["accuracy", "accuracy, judge 2"]
    assert [entry.difference for row in found.rows if (entry := row.entries[1])] == [
        pytest.approx(0.1), pytest.approx(-0.2),
    ]  # fmt: skip
    assert found.warnings == ()
    assert len(found.statements) == 1


def test_a_judge_is_found_again_in_another_place(tmp_path: Path) -> None:
    runs = judged(tmp_path, "a", {"1111": 0.6, "2222": 0.4}), judged(tmp_path, "b", {"2222": 0.2, "3333": 0.9})
    found = compare(runs)
    second = next(row for row in found.rows if row.evaluator == "accuracy, judge 2")
    assert second.entries[1] is not None
    assert second.entries[1].value == 0.2
    first = next(row for row in found.rows if row.evaluator == "accuracy")
    assert first.entries[1] is not None
    assert first.entries[1].value == 0.9
    assert "judged by different models (evaluator-model)" in found.warnings[0]
    assert "Evaluator accuracy had another identity" in found.warnings[1]


def test_a_second_judge_of_one_run_only_has_nothing_to_compare_with(tmp_path: Path) -> None:
    runs = judged(tmp_path, "a", {"1111": 0.6}), judged(tmp_path, "b", {"1111": 0.7, "2222": 0.2})
    found = compare(runs)
    assert [row.evaluator for row in found.rows] == ["accuracy"]
    assert found.warnings == ()
