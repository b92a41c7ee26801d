"""Gates of pipelines: how they are read and decided, and the CSV and JUnit files beside them."""

from __future__ import annotations

import csv
import io
import math
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micore.errors import GateFailed, UsageError
from micore.report import document, render
from micore.report.gate_grammar import ARITHMETIC, Number, Operation, parse_gate
from micore.report.gates import FAILED, PASSED, UNDECIDED, check_gates, require_gates
from micore.report.rows import COLUMNS
from micore.runs import Run
from tests.run_directories import figures, make_run, manifest, measurement

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Attack 0.6 [0.55, 0.65], floors 0.1 [0.05, 0.15] and 0.05, ceiling 0.9 [0.85, 0.95]; a distance, two judges."""
    more = [
        *figures("down"), measurement(name="rank-1", value=0.3, evaluator="voice@77"),
        measurement(name="rank-1", value=0.5, evaluator="face"), measurement(name="odd name", value=2.0, bounds=None),
        measurement(name="auc.high", value=0.8), measurement(name="lost", value=math.nan),
    ]  # fmt: skip
    return document(make_run(tmp_path_factory.mktemp("gates") / "run", measurements=[*figures(), *more]))


def status(report, text: str) -> str:
    return check_gates(report, [text])[-1].status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy@1 > floor + 0.1", FAILED),
        ("accuracy > floor + 0.1", FAILED),
        ("accuracy > floor + 0.6", PASSED),
        ("accuracy >= 0.6", FAILED),
        ("accuracy > 0.6", PASSED),
        ("accuracy <= 0.6", FAILED),
        ("accuracy < .6", PASSED),
        ("accuracy.low > floor.high", FAILED),
        ("accuracy.low > 0.56", PASSED),
        ("accuracy.high < 6.6e-1", FAILED),
        ("accuracy > ceiling - 0.2", PASSED),
        ("accuracy > ceiling.low - ceiling.high + 0.75", PASSED),
        ("accuracy of prior-samples > 0.09", FAILED),
        ("accuracy of holdout < 0.95", FAILED),
        ("accuracy > 2 * floor * (1 + 1) + 0.1", FAILED),
        ("accuracy > 1 - 0.2 - 0.3", FAILED),
        ("accuracy > 1 - (0.2 - 0.3)", PASSED),
        ("accuracy > 1 / 2 / 2", FAILED),
        ("accuracy > --1", PASSED),
        ("accuracy > -floor", FAILED),
        ("distance < floor - 0.1", FAILED),
        ("distance < ceiling", PASSED),
        ("accuracy > rank-1 by voice", FAILED),
        ("accuracy > rank-1 by face + 0.2", PASSED),
        ("rank-1 > 0.4", FAILED),
        ("rank-1 by voice@77 > 0.4", PASSED),
        ("rank-1 by voice of attack > 0.2", FAILED),
        ("'odd name' > 1", FAILED),
        ('"odd name" > 3', PASSED),
        ("auc.high > 0.75", FAILED),
        ("auc.high.low > 0.75", PASSED),
    ],
)  # fmt: skip
def test_a_gate_fails_when_its_condition_holds(report, text, expected) -> None:
    assert status(report, text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lost > 0", "lost is unknown"),
        ("accuracy > lost", "lost is unknown"),
        ("rank-1 by face > floor", "no floor was measured"),
        ("rank-1 by face > ceiling", "no ceiling was measured"),
        ("rank-1 of holdout > 0", "rank-1 was not measured of holdout"),
        ("accuracy > rank-1 by face of holdout", "rank-1 was not measured of holdout"),
        ("'odd name'.low > 0", None),
        ("accuracy > 1 / (floor - floor)", "1 / 0 is no number"),
        ("accuracy > 1e308 * 10", "1e+308 * 10 is no number"),
    ],
)
def test_what_cannot_be_decided_does_not_pass(report, text, reason) -> None:
    if reason is None:
        with pytest.raises(UsageError):
            check_gates(report, [text])
        return
    outcome = check_gates(report, [text])[-1]
    assert outcome.status == UNDECIDED
    assert reason in " ".join(outcome.details)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "lacks a number or a figure at its end", "a gate reads like"),
        ("accuracy", "needs one of >= <= > < at its end", "a gate reads like"),
        ("accuracy == 1", "cannot be read at '== 1'", "a gate reads like"),
        ("accuracy > ", "lacks a number or a figure at its end", "a gate reads like"),
        ("accuracy > 1 1", "more than one condition at '1'", "a gate reads like"),
        ("accuracy > 1 > 2", "more than one condition at '> 2'", "a gate reads like"),
        ("accuracy > (1 + 2", "bracket that is never closed at '(1 + 2'", "a gate reads like"),
        ("accuracy > 1 + * 2", "lacks a number or a figure at '* 2'", "a gate reads like"),
        ("accuracy > 3x", "cannot be read at '3x'", "a gate reads like"),
        ("accuracy > __import__('os')", "more than one condition at", "a gate reads like"),
        ("accuracy > " + "(" * 2000 + "1" + ")" * 2000, "nested too deeply", "a gate reads like"),
        ("floor > 1", "does not begin with a figure", "a gate reads like"),
        ("accuracy of > 1", "lacks a name behind 'of' at '> 1'", "a gate reads like"),
        ("nothing > 1", "no figure 'nothing'", "it has accuracy@1, distance, rank-1, odd name, auc.high, lost"),
        ("accuracy > floor-0.1", "no figure 'floor-0.1'", "put spaces around a minus"),
        ("accuracy of nobody > 1", "no figures of 'nobody'", "attack, prior-samples, wrong-label, holdout"),
        ("rank-1 by nobody > 1", "'nobody' did not measure 'rank-1'", "voice@77, face"),
        ("accuracy > rank-1", "several evaluators measured 'rank-1'", "rank-1 by voice@77, rank-1 by face"),
    ],
)
def test_a_gate_that_cannot_be_read_is_explained(report, text, message, hint) -> None:
    with pytest.raises(UsageError) as error:
        check_gates(report, [text])
    assert message in error.value.message
    assert hint in (error.value.hint or "")


@SLOW
@given(st.recursive(
    st.floats(0, 100).map(Number),
    lambda inner: st.builds(Operation, st.sampled_from(sorted(ARITHMETIC)), inner, inner), max_leaves=12,
))  # fmt: skip
def test_what_is_written_with_brackets_is_read_back(tree) -> None:
    def written(item) -> str:
        if isinstance(item, Number):
            return repr(item.value)
        return f"({written(item.left)} {item.sign} {written(item.right)})"

    assert parse_gate(f"a > {written(tree)}").limit == tree


@SLOW
@given(st.text(max_size=40))
def test_any_text_is_a_gate_or_a_usage_error(text) -> None:
    with suppress(UsageError):
        parse_gate(text)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, PASSED), ({"status": "budget"}, PASSED), ({"status": "failed"}, UNDECIDED),
     ({"status": "attacking"}, UNDECIDED)],
)  # fmt: skip
def test_a_run_without_end_cannot_pass(tmp_path, changes, expected) -> None:
    found = document(make_run(tmp_path / "run", manifest(**changes), figures()))
    outcomes = check_gates(found, ["accuracy > 0.7"])
    assert [outcome.status for outcome in outcomes] == [expected, PASSED]
    if expected == PASSED:
        require_gates(outcomes)
    else:
        with pytest.raises(GateFailed, match="1 of 2 gates not passed: the attack came to its end"):
            require_gates(outcomes)


def test_failed_cases_and_missing_figures_cannot_pass(tmp_path) -> None:
    content = manifest()
    content["cases"][0]["status"] = "failed"
    outcomes = check_gates(document(make_run(tmp_path / "run", content)), ["accuracy > 0.7"])
    assert [outcome.status for outcome in outcomes] == [UNDECIDED, UNDECIDED]
    assert "1 case failed" in outcomes[0].details
    assert outcomes[1].details == ["the run has no figures"]


# files --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(
        tmp_path / "run-1", measurements=[*figures(), measurement(name="=1+1", value=math.nan, bounds=None)]
    )


def test_csv_has_a_row_for_each_figure_and_subject(run) -> None:
    rows = list(csv.DictReader(io.StringIO(render(run, "csv"))))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["name"], row["subject"]) for row in rows if row["evaluator"] not in ("cost", "overlap")] == [
        ("accuracy@1", "attack"), ("accuracy@1", "prior-samples"), ("accuracy@1", "wrong-label"),
        ("accuracy@1", "holdout"), ("'=1+1", "attack"),
    ]  # fmt: skip
    cells = document(run)["results"]["rows"][0]["cells"]
    for row in rows[:4]:
        cell = cells[row["subject"]]
        assert float(row["value"]) == cell["value"]
        assert (float(row["low"]), float(row["high"])) == (cell["interval"]["low"], cell["interval"]["high"])
        assert (row["n"], row["clusters"], row["unit"], row["direction"]) == ("24", "12", "share", "up")
    assert [rows[4][key] for key in ("value", "low", "high")] == ["", "", ""]


def test_junit_has_a_test_case_for_each_gate(run) -> None:
    text = render(run, "junit", gates=["accuracy > floor + 0.1", "accuracy > 0.9", "'=1+1' < 1"])
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        "run-1",
        "4",
        "1",
        "1",
    )
    assert suite.get("time") == "150.000"
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "the attack came to its end": ["system-out"], "accuracy > floor + 0.1": ["failure"],
        "accuracy > 0.9": ["system-out"], "'=1+1' < 1": ["error"],
    }  # fmt: skip
    assert suite.findtext("testcase/failure") == "accuracy@1 by accuracy@1234: 0.6 is > 0.2"
    assert "accuracy@1 0.600 [0.550, 0.650]" in (suite.findtext("system-out") or "")
    assert {item.get("name") for item in suite.iter("property")} >= {"attack", "target", "data", "seed", "command"}


def test_junit_holds_what_xml_cannot(tmp_path) -> None:
    content = manifest()
    content["attack"]["name"] = content["data"]["fingerprint"] = "a\x00<b> & ]]>"
    run = make_run(tmp_path / "run", {**content, "status": "attacking"}, figures())
    suite = ElementTree.fromstring(render(run, "junit"))
    case = suite.find("testsuite/testcase")
    assert case is not None
    assert case.get("classname") == "micore.a\ufffd<b> & ]]>"
    assert suite.findtext("testsuite/testcase/error") == "not finished (attacking)"
