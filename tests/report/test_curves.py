"""Recovery over queries: which points a curve has, and that it is drawn, or told to be missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from micore.contracts import Case, Reconstruction, Snapshot
from micore.report.curves import curves, drawing
from micore.report.findings import findings
from micore.report.html import curve, to_html
from micore.report.markdown import to_markdown
from micore.report.model import build
from micore.runs import Run
from micore.runs.subjects import snapshots
from tests.run_directories import NumberModality, figures, make_run, manifest, measurement

LEDGER = {"total": {"queries": 130, "gradients": 0}}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of two cases that spent 50 and 70 queries, and 10 together, with stands at 20 and 40, and at 30."""
    document = manifest(n_cases=2, ledger={**manifest()["ledger"], **LEDGER})
    stands = [("snapshot-0", 0.2, (0.1, 0.3)), ("snapshot-1", 0.4, None)]
    measured = [*figures(), *(measurement(name, value, bounds) for name, value, bounds in stands)]
    found = make_run(tmp_path / "run", document, measured)
    for label, (spent, looks) in enumerate([(50, [20, 40]), (70, [30])]):
        row = found.rows()[f"class-{label}"]
        row |= {"spending": {"queries": spent, "gradients": 0}}
        item = Reconstruction(
            case=Case(id=row["id"], goal="class", label=label), samples=torch.zeros(2, 1), scores=torch.zeros(2),
            snapshots=[Snapshot(queries=queries, samples=torch.ones(2, 1)) for queries in looks],
        )  # fmt: skip
        found.write_case(row, item, NumberModality())
    return found


def test_a_point_has_the_queries_of_the_whole_run(run):
    (found,) = curves(run, findings(run))
    assert [point["queries"] for point in found["points"]] == [10 + 20 + 30, 10 + 40 + 70, 130]
    assert [point["step"] for point in found["points"]] == [1, 2, None]
    assert [point["value"] for point in found["points"]] == [0.2, 0.4, 0.6]
    assert [point["low"] for point in found["points"]] == [0.1, None, pytest.approx(0.55)]
    assert found["floor"] == {"name": "prior-samples", "value": 0.1}


def test_stands_are_no_columns(run):
    assert all(not name.startswith("snapshot") for item in findings(run) for name in item.subjects)


def test_a_run_without_stands_has_no_curve(tmp_path):
    plain = make_run(tmp_path / "plain", measurements=figures())
    assert curves(plain, findings(plain)) == []
    assert "Recovery over steps and queries" not in to_markdown(build(plain))


def test_reports_have_the_curve(run):
    from micore.report.gallery import Gallery

    report = build(run)
    text = to_markdown(report)
    assert "## Recovery over steps and queries" in text
    assert "| 120 |" in text
    page = to_html(report, Gallery(columns=[], exhibits=[], total=0))
    assert "0.200 at 60" in page
    pytest.importorskip("matplotlib")
    assert 'role="img" aria-label="accuracy@1' in page
    assert page.count("<svg") >= 2


def test_the_picture_is_the_same_each_time(run):
    pytest.importorskip("matplotlib")
    (found,) = curves(run, findings(run))
    first, second = (drawing({"a": found["points"]}, "share", 0.1) for _ in range(2))
    assert first == second
    assert first is not None
    assert first.startswith("<svg")
    assert "http" not in first.replace("http://www.w3.org", "").replace("http://purl.org", "")


def test_without_matplotlib_the_numbers_stay(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (found,) = curves(run, findings(run))
    assert curve(found) is None
    assert "0.2" in to_markdown(build(run))


def test_stands_are_subjects():
    def item(case_id: str, looks: list[int]) -> Reconstruction:
        return Reconstruction(
            case=Case(id=case_id, goal="class", label=0), samples=torch.zeros(1, 1), scores=torch.zeros(1),
            snapshots=[Snapshot(queries=queries, samples=torch.full((1, 1), float(queries))) for queries in looks],
        )  # fmt: skip

    first, second = snapshots([item("a", [1, 2]), item("b", [3])])
    assert [subject.name for subject in (first, second)] == ["snapshot-0", "snapshot-1"]
    assert [float(row.samples) for row in first.reconstructions] == [1, 3]
    assert [float(row.samples) for row in second.reconstructions] == [2, 0], "the last stand is what it gave back"
    assert snapshots([item("a", [])]) == []
