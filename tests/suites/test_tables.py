"""The tables of a benchmark: what they say of a row, over seeds, in Markdown, HTML and a page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micore.errors import UsageError
from micore.report.html import policy_hash, sorting_script
from micore.suites import Machine, Precision
from micore.suites.curves import budget_tables
from micore.suites.pages import check_page, drawn_tables, to_markdown
from micore.suites.seeds import mean_interval, over_seeds, student_quantile
from tests.report.test_report import Page
from tests.run_directories import JUDGE
from tests.suites.conftest import Pretended

Start = Callable[..., dict[str, Any]]


@pytest.fixture
def document(run_suite: Start, pretended: Pretended) -> dict[str, Any]:
    """The toy suite, one row of which failed."""
    pretended.errors = {"--plugin by-label": "<b>no|good</b>"}
    return run_suite(machine=Machine(device="cpu", data_root="/data"))


# the document -------------------------------------------------------------------------------------


def test_a_row_holds_all_that_a_table_needs(document: dict[str, Any], tmp_path: Path) -> None:
    assert document["schema"] == "micore.bench/1"
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == document
    row = document["rows"][0]
    assert (row["target"], row["defense"], row["attack"], row["seed"]) == ("grids", "none", "scripted", 0)
    assert row["holdout_accuracy"]["value"] == 0.95
    assert (row["prepare_s"], row["attack_s"], row["queries"], row["gradients"]) == (30.0, 18.5, 115, 40)
    assert row["peak_memory_bytes"] == {"process": 700_000_000, "accelerator": None}
    assert row["cases"] == {"done": 12, "total": 12}
    (figure,) = row["figures"]
    assert (figure["name"], figure["evaluator"], figure["judge"], figure["value"]) == (
        "accuracy@1",
        "accuracy",
        None,
        0.6,
    )
    assert figure["floors"]["prior-samples"]["value"] == 0.1
    assert (figure["ceiling"]["value"], figure["beats_floor"]) == (0.9, True)
    assert (tmp_path / "out" / row["run"]).exists()
    assert document["versions"] == {"micore": ["0.1.0"], "torch": ["2"]}
    assert document["machines"] == [{"device": "cpu", "device_name": "CPU", "cores": 2}]


def test_no_place_of_this_machine_is_in_the_tables(document: dict[str, Any], tmp_path: Path) -> None:
    for name in ("bench.json", "bench.md", "bench.html"):
        text = (tmp_path / "out" / name).read_text()
        assert str(tmp_path) not in text.replace(document["rows"][2]["error"], "")
        assert '"/data' not in text
    assert document["command"] == "mi bench toy.toml -o DIR --data-root DATA --device cpu"
    assert document["rows"][0]["command"].startswith("mi attack --plugin scripted --model DIR/targets/grids-none-0")


def test_the_command_names_the_suite_as_seen_from_here(
    run_suite: Start, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suite.parent.parent)
    found = run_suite(only=["by-*"], arithmetic=Precision(name="bf16", compiled=True), machine=Machine(tile=4))
    assert found["command"] == (
        f"mi bench {suite.parent.name}/toy.toml -o DIR --only 'by-*' --precision bf16 --compile --tile 4"
    )


def test_figures_of_several_judges_are_told_apart(
    run_suite: Start, pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from tests.suites import conftest

    first = JUDGE["evaluator-model"] | {"fingerprint": "1" * 64, "identity": "1" * 12}
    second = first | {"fingerprint": "2" * 64, "identity": "2" * 12, "model": "other-net", "independent": False}
    plain = conftest.figures()
    items = [replace(item, evaluator=f"accuracy@{judge['identity']}") for judge in (first, second) for item in plain]
    items += [replace(item, name="shape", evaluator="shape@0", direction="none") for item in plain]
    monkeypatch.setattr(conftest, "figures", lambda: items)
    make = conftest.make_run
    judges = {"evaluator-model": first, "evaluator-model-2": second}
    monkeypatch.setattr(conftest, "make_run", lambda *arguments: make(*arguments, judges=judges))
    document = run_suite(only=["by-label"])
    assert [(column["name"], column["judge"]) for column in document["columns"]] == [
        ("accuracy@1", 1),
        ("accuracy@1", 2),
    ]
    text = to_markdown(document, drawn_tables(document))
    assert "| accuracy@1, judge 1 | accuracy@1, judge 2 |" in text
    assert "| grids | 2 | other-net, not fully independent | 222222222222 | 97.0% [" in text


def test_the_suite_chooses_figures(run_suite: Start, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from tests.suites import conftest

    plain = conftest.figures()
    items = [*plain, *(replace(item, name="hue", direction="none") for item in plain)]
    monkeypatch.setattr(conftest, "figures", lambda: items)
    assert [column["name"] for column in run_suite(only=["by-label"])["columns"]] == ["accuracy@1"]
    suite.write_text(suite.read_text().replace('name = "toy"', 'name = "toy"\nfigures = ["h*", "nothing", "acc*"]'))
    assert [column["name"] for column in run_suite(only=["by-label"])["columns"]] == ["hue", "accuracy@1"]


def test_a_control_beats_nothing(run_suite: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.suites import conftest

    plain = conftest.manifest

    def control(**changes: Any) -> dict[str, Any]:
        content = plain(**changes)
        content["attack"]["control"] = True
        return content

    monkeypatch.setattr(conftest, "manifest", control)
    assert run_suite(only=["by-label"])["rows"][2]["figures"][0]["beats_floor"] is None


# renderings ---------------------------------------------------------------------------------------


def test_markdown_has_rows_seeds_failures_and_circumstances(document: dict[str, Any], tmp_path: Path) -> None:
    text = (tmp_path / "out" / "bench.md").read_text()
    lines = text.splitlines()
    (row,) = [line for line in lines if line.startswith("| grids | none | scripted | 0 |")]
    assert "| **0.600 [0.550, 0.650]**<br>prior-samples 0.100<br>ceiling 0.900 |" in row
    assert row.endswith("| 30.0 s | 18.5 s | 115 | 40 | 700 MB | finished |")
    (summary,) = [line for line in lines if line.startswith("| grids | none | scripted | 0, 1 |")]
    assert "| 0.650 [0.015, 1.000]<br>prior-samples 0.100<br>ceiling 0.900 | 18.5 s |" in summary
    assert "- grids/none/by-label/0: failed: &lt;b&gt;no\\|good&lt;/b&gt;" in lines
    assert "Command: `mi bench toy.toml -o DIR --data-root DATA --device cpu`." in lines
    assert "Versions: micore 0.1.0, torch 2." in lines
    (line,) = [line for line in lines if line.startswith("- grids: overlap audit: hash=exact; overlap of public: ")]
    assert "of 500 samples, 0 equal and 0 resemble a private one" in line
    assert line[2:] in (tmp_path / "out" / "bench.html").read_text()
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables[:5]}) == 1


def test_html_is_self_contained_and_escapes_what_it_shows(document: dict[str, Any], tmp_path: Path) -> None:
    text = (tmp_path / "out" / "bench.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert f"script-src '{policy_hash(sorting_script())}'" in text
    assert page.tags.count("table") == text.count('<table class="sortable">') == 3
    assert all((tmp_path / "out" / address).exists() for address in page.addresses)
    assert len(page.addresses) == 3
    assert sorted(page.ids) == sorted(page.labels)
    assert "&lt;b&gt;no|good&lt;/b&gt;" in text
    assert "<b>0.600 [0.550, 0.650]</b>" in text
    assert "2 of 3 rows finished, 1 with an error" in text


def test_a_suite_of_which_nothing_ran(run_suite: Start, pretended: Pretended, tmp_path: Path) -> None:
    pretended.errors = {"train": "no such data"}
    document = run_suite()
    Page((tmp_path / "out" / "bench.html").read_text())
    text = to_markdown(document, drawn_tables(document))
    assert "Machine: unknown." in text
    assert document["seeds"] == []
    assert document["columns"] == []


def test_failed_cases_and_accelerators_are_told(document: dict[str, Any]) -> None:
    from micore.suites import texts

    row = {**document["rows"][0], "cases": {"done": 10, "failed": 2, "total": 12}, "prepare_cached": True}
    row["peak_memory_bytes"] = {"process": 2_000_000_000, "accelerator": 3_500_000_000}
    cells = texts.row_cells(row, [], texts.mean)
    assert cells[-1] == "finished, 2 of 12 cases failed"
    assert cells[-2] == "2.00 GB of the process, 3.50 GB of the accelerator"
    assert cells[-6] == "30.0 s *"


# a page -------------------------------------------------------------------------------------------


def test_the_tables_are_put_between_the_markers_of_a_page(
    run_suite: Start, pretended: Pretended, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n<!-- toy: begin -->\nthe last ones\n<!-- toy: end -->\n\n"
        "<!-- other: begin -->\n<!-- other: end -->\n"
    )
    document = run_suite(page=page)
    text = page.read_text()
    assert text.startswith("# Page\n\n<!-- toy: begin -->\n| target | defense |")
    assert text.endswith("\n<!-- toy: end -->\n\n<!-- other: begin -->\n<!-- other: end -->\n")
    assert "the last ones" not in text
    assert run_suite(page=page) == document
    assert page.read_text() == text


@pytest.mark.parametrize("text", ["", "<!-- toy: begin -->", "<!-- toy: end --> <!-- toy: begin -->"])
def test_a_page_without_markers_is_refused_before_anything_runs(
    run_suite: Start, pretended: Pretended, tmp_path: Path, text: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UsageError, match="has no place for the tables of toy") as caught:
        run_suite(page=page)
    assert "`<!-- toy: begin -->`" in (caught.value.hint or "")
    assert pretended.calls == []
    with pytest.raises(UsageError, match="cannot be read"):
        check_page(tmp_path / "nowhere.md", "toy")


# seeds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [*range(1, 12), 30, 101])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_students_quantiles(freedom: int, probability: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_a_mean_lies_in_its_interval(values: list[float]) -> None:
    found = mean_interval(values)
    assert found["value"] == pytest.approx(np.mean(values), abs=1e-9)
    if found["interval"]:
        assert found["interval"]["low"] < found["value"] < found["interval"]["high"]


def test_an_interval_of_three_values() -> None:
    found = mean_interval([0.2, 0.5, 0.8])
    half = 4.302652729749464 * 0.3 / math.sqrt(3)
    assert found["interval"]["high"] == pytest.approx(0.5 + half)
    assert mean_interval([0.2, 0.5, 0.8], share=True)["interval"] == {"low": 0.0, "high": 1.0, "level": 0.95}


def test_equal_values_and_single_ones_claim_no_certainty() -> None:
    assert mean_interval([0.5, 0.5, 0.5])["interval"] is None
    assert mean_interval([0.5])["interval"] is None


def row(seed: int, value: float | None, **changes: Any) -> dict[str, Any]:
    bounds = {"floors": {"noise": {"value": 5.0 + seed}}, "ceiling": {"value": 1.0} if seed else None}
    figure = {"name": "a", "evaluator": "e", "judge": 1, "unit": "L2", "value": value, **bounds}
    return {
        "target": "t", "defense": "d", "attack": "x", "seed": seed, "status": "finished", "attack_s": 2.0,
        "figures": [figure], "holdout_accuracy": {"value": 0.9}, **changes,
    }  # fmt: skip


def test_only_finished_rows_that_have_a_figure_are_averaged() -> None:
    rows = [row(0, 1.0), row(1, 3.0), row(2, 9.0, status="failed"), row(3, 5.0, target="other")]
    (found,) = over_seeds(rows)
    assert (found["seeds"], found["figures"][0]["value"], found["attack_s"]) == ([0, 1], 2.0, 2.0)
    assert found["figures"][0]["interval"]["low"] < 0, "a distance is not cut off"
    assert found["figures"][0]["floors"] == {"noise": {"value": 5.5}}
    assert found["figures"][0]["ceiling"] is None, "one of the rows has none"
    (found,) = over_seeds([row(0, 1.0), row(1, None)])
    assert found["figures"] == []
    assert over_seeds([row(0, 1.0)]) == []


def test_rows_with_budgets_make_curves(run_suite: Start, suite: Path, tmp_path: Path) -> None:
    text = suite.read_text().replace("seeds = [0, 1]", 'seeds = [0]\nfigures = ["accuracy@1"]')
    suite.write_text(text.replace('plugin = "scripted"\n', 'plugin = "scripted"\nbudget_queries = [50, 1000]\n'))
    page = tmp_path / "page.md"
    page.write_text("<!-- toy: begin -->\n<!-- toy: end -->\n")
    document = run_suite(page=page)
    (table,) = budget_tables(document)
    assert table["columns"] == ["attack", "within 50 queries", "within 1,000 queries", "floor", "ceiling"]
    assert table["rows"][0][-2:] == ["0.100", "0.900"]
    assert [cells[0] for cells in table["rows"]] == ["scripted"]
    assert all(re.fullmatch(r"0\.\d+ \[.*\]", cell) for cell in table["rows"][0][1:-2])
    assert table["title"] == "accuracy@1, grids, seed 0"
    (picture,) = tmp_path.glob("page-toy-*.svg")
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")
    assert f"]({picture.name})" in page.read_text()
    assert table["title"] in (tmp_path / "out" / "bench.html").read_text()
