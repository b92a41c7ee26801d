"""Reports of finished, stopped, empty and odd runs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from micore.contracts import Measurement
from micore.errors import StorageError, UsageError
from micore.report import document, render, write_report
from micore.report.command import attack_command
from micore.report.figures import duration, number, plural, size
from micore.report.findings import Finding
from micore.report.glossary import explain
from micore.report.markdown import escape, table
from micore.runs import Run
from tests.run_directories import (
    JUDGE,
    NumberData,
    NumberModality,
    figures,
    make_run,
    manifest,
    measurement,
)

MODALITY: Any = NumberModality()

KEYS = {
    "schema", "run", "threat", "target", "data", "results", "judges", "classes", "curves", "cost", "cases", "controls",
    "reproduction", "glossary", "validity", "not_tested", "headline",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    per_case = {f"class-{label}": label / 12 for label in range(12)}
    return make_run(tmp_path / "run-1", measurements=figures(per_case=per_case))


def warnings(run: Run) -> str:
    return "\n".join(item["text"] for item in document(run)["validity"] if item["level"] == "warning")


class Page(HTMLParser):
    """The tags of a page, checked for balance, with every address in it."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "line", "circle", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {key: value or "" for key, value in attrs}
        self.addresses += [values[key] for key in ("src", "href", "srcset", "action", "data") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        self.labels += [values["aria-labelledby"]] if "aria-labelledby" in values else []
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"


# the document -------------------------------------------------------------------------------------


def test_the_document_has_every_section_and_is_plain_json(run: Run) -> None:
    found = document(run)
    assert set(found) == KEYS
    assert found["schema"] == "micore.report/1"
    assert json.loads(render(run, "json")) == found == json.loads(json.dumps(found, allow_nan=False))
    row = found["results"]["rows"][0]
    assert set(row) >= {"name", "evaluator", "cells", "beats_floor", "reach", "direction", "unit"}
    assert set(row["cells"]) == {"attack", "prior-samples", "wrong-label", "holdout"}
    assert row["cells"]["attack"]["interval"] == {
        "low": pytest.approx(0.55), "high": pytest.approx(0.65), "level": 0.95
    }  # fmt: skip
    assert row["reach"] == pytest.approx((0.6 - 0.1) / (0.9 - 0.1))


def test_the_headline_gives_the_figure_its_interval_floor_ceiling_and_scope(run: Run) -> None:
    found = document(run)["headline"]
    assert "accuracy@1 0.600 [0.550, 0.650]" in found["text"]
    assert "floor prior-samples 0.100 [0.050, 0.150]" in found["text"]
    assert "ceiling holdout 0.900 [0.850, 0.950]" in found["text"]
    assert "entirely above every floor" in found["verdict"]
    assert "One attack" in found["scope"]
    assert "12 of 12 attacked cases" in found["scope"]
    assert "accuracy@1234" in found["scope"]


def test_the_run_keeps_a_clean_bill(run: Run) -> None:
    assert warnings(run) == ""
    notes = [item["text"] for item in document(run)["validity"]]
    assert notes == ["accuracy@1234, accuracy@1 (attack): judge knows 20 classes"]


def test_what_was_not_tested_depends_on_the_run(tmp_path: Path) -> None:
    content = manifest(20, 5, access={"granted": "label", "used": None})
    content["target"]["card"]["defenses"] = [{"name": "blur", "config": {"radius": 2}}]
    text = "\n".join(document(make_run(tmp_path / "run", content))["not_tested"])
    assert "15 classes of 20: not attacked." in text
    assert "more than label access" in text
    assert "adapted to the target's defenses" in text
    assert "set budget" in text


def test_accuracies_stand_beside_interval_and_chance(run: Run) -> None:
    text = render(run, "markdown")
    assert "**held-out accuracy**: 0.950 \\[0.910, 0.973\\] (n = 200; chance 0.083)" in text
    assert "**training accuracy**: 1.000 \\[no interval\\] (n unknown; chance 0.083)" in text
    assert "**its own held-out accuracy**: 0.970" in text


def test_queries_are_split_into_preparation_cases_and_shared(run: Run) -> None:
    text = render(run, "markdown")
    assert "**queries**: 115 in all: preparation 10, 12 cases 100, shared by cases 5" in text
    assert "**gradients**: 40 in all: preparation 0, 12 cases 40, shared by cases 0" in text


# floors -------------------------------------------------------------------------------------------


def finding(attack: Measurement, *floors: Measurement, ceiling: Measurement | None = None) -> Finding:
    subjects = {item.subject: item for item in (attack, *floors, *([ceiling] if ceiling else []))}
    return Finding(
        name="figure", evaluator="judge", unit="share", direction=attack.direction, subjects=subjects,
        floors=[item.subject for item in floors], ceiling=ceiling.subject if ceiling else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("direction", "bounds", "floor", "floor_bounds", "beats", "overlaps"),
    [
        ("up", (0.5, 0.7), 0.4, (0.3, 0.45), True, False),
        ("up", (0.5, 0.7), 0.4, (0.3, 0.55), True, True),
        ("up", (0.5, 0.7), 0.5, (0.4, 0.6), False, True),
        ("up", (0.5, 0.7), 0.9, (0.8, 1.0), False, True),
        ("down", (0.5, 0.7), 0.9, (0.8, 1.0), True, False),
        ("down", (0.5, 0.7), 0.9, (0.6, 1.2), True, True),
        ("down", (0.5, 0.7), 0.7, (0.6, 0.8), False, True),
        ("down", (0.5, 0.7), 0.4, (0.3, 0.45), False, True),
    ],
)
def test_an_attack_beats_a_floor_when_its_whole_interval_is_beyond(
    direction: str, bounds: tuple[float, float], floor: float, floor_bounds: tuple[float, float],
    beats: bool, overlaps: bool,
) -> None:  # fmt: skip
    attack = measurement("attack", 0.6, bounds, direction=direction)
    found = finding(attack, measurement("prior-samples", floor, floor_bounds, direction=direction))
    assert found.beats_floor is beats
    assert found.overlaps_floor is overlaps


def test_every_floor_must_be_beaten() -> None:
    attack = measurement("attack", 0.6, (0.5, 0.7))
    low, high = measurement("prior-samples", 0.1, (0.0, 0.2)), measurement("wrong-label", 0.65, (0.6, 0.7))
    assert finding(attack, low).beats_floor is True
    assert finding(attack, low, high).beats_floor is False
    assert finding(attack, low, high).highest_floor is high


def test_without_interval_floor_or_direction_nothing_is_claimed() -> None:
    floor = measurement("prior-samples", 0.1)
    assert finding(measurement(bounds=None), floor).beats_floor is None
    assert finding(measurement(bounds=(-math.inf, math.inf)), floor).beats_floor is None
    assert finding(measurement()).beats_floor is None
    assert finding(measurement(direction="none"), floor).beats_floor is None
    assert finding(measurement(), measurement("prior-samples", math.nan)).beats_floor is None


def test_reach_is_unknown_when_the_ceiling_is_not_beyond_the_floor() -> None:
    floor, ceiling = measurement("prior-samples", 0.5), measurement("holdout", 0.4)
    assert finding(measurement(), floor, ceiling=ceiling).reach is None


def test_lower_can_be_more_leakage(tmp_path: Path) -> None:
    row = document(make_run(tmp_path / "run", measurements=figures("down")))["results"]["rows"][0]
    assert row["beats_floor"] is True
    assert row["highest_floor"] == "prior-samples"
    assert row["reach"] == pytest.approx((0.6 - 0.1) / (0.9 - 0.1))


def test_an_evaluators_own_control_and_any_stored_control_are_floors(tmp_path: Path) -> None:
    items = [measurement(), measurement("nearest-public", 0.9), measurement("random", 0.2)]
    run = make_run(tmp_path / "run", measurements=items, control="random")
    row = document(run)["results"]["rows"][0]
    assert row["floors"] == ["nearest-public", "random"]
    assert row["beats_floor"] is False
    assert "shows no leakage" in document(run)["headline"]["verdict"]


# several judges, and what it cost -------------------------------------------------------------------


def by_two(first: float, second: float) -> list[Measurement]:
    """Return accuracies of two judges with one floor."""
    return [
        item
        for evaluator, value in (("accuracy@1234", first), ("accuracy@5678", second))
        for item in (
            measurement("attack", value, (value - 0.05, value + 0.05), evaluator=evaluator),
            measurement("prior-samples", 0.1, (0.05, 0.15), evaluator=evaluator),
            measurement("holdout", 0.9, (0.85, 0.95), evaluator=evaluator),
        )
    ]


def test_the_headline_gives_every_judge_and_warns_when_they_disagree(tmp_path: Path) -> None:
    judges = {"evaluator-model": {**JUDGE["evaluator-model"], "identity": "1234"}}
    judges["evaluator-model-2"] = {**judges["evaluator-model"], "identity": "5678", "model": "other-net"}
    agreeing = make_run(tmp_path / "agreeing", measurements=by_two(0.6, 0.5), judges=judges)
    text = everything(agreeing)
    assert "accuracy@1 0.600" in document(agreeing)["headline"]["text"]
    (other,) = document(agreeing)["headline"]["other_judges"]
    assert other == (
        "Judged by accuracy@5678: accuracy@1 0.500 [0.450, 0.550]; floor prior-samples 0.100 [0.050, 0.150]; "
        "ceiling holdout 0.900 [0.850, 0.950]. Beats the floor: yes."
    )
    assert escape(other) in text
    assert other in render(agreeing, "html").replace("&#39;", "'")
    assert "- **its figures are marked**: @5678" in text
    assert "disagree" not in warnings(agreeing)
    torn = make_run(tmp_path / "torn", measurements=by_two(0.6, 0.12), judges=judges)
    assert "Judges disagree on whether accuracy@1 beats its floors" in warnings(torn)


def test_one_judge_has_no_others(run: Run) -> None:
    assert document(run)["headline"]["other_judges"] == []


def test_time_and_memory_are_told(tmp_path: Path) -> None:
    content = manifest(timings={"attack_s": 90.0, "evaluate_s": 7.0})
    content["peak_memory_bytes"] = {"process": 1_234_000_000, "accelerator": 56_000_000}
    text = everything(make_run(tmp_path / "run", content))
    assert "**attacking**: 90.0 s over 12 cases" in text
    assert "**judging, training of judges included**: 7.0 s" in text
    assert "**most memory held by preparing and attacking**: 1.23 GB of the process, 56 MB of the accelerator" in text


def test_a_run_of_before_they_were_measured(run: Run) -> None:
    text = everything(run)
    assert "**attacking**: 18.0 s over 12 cases" in text
    assert "**most memory held by preparing and attacking**: n/a" in text


# odd runs -----------------------------------------------------------------------------------------


def everything(run: Run) -> str:
    """Render all formats and return the Markdown."""
    Page(render(run, "html", modality=MODALITY))
    json.loads(render(run, "json"))
    return render(run, "markdown")


def test_a_run_without_reconstructions_says_so(tmp_path: Path) -> None:
    content = manifest(3, status="budget")
    for case in content["cases"]:
        case["status"] = "budget"
        case.pop("seconds")
    content["cases"][0] |= {"status": "failed", "error": "ValueError: no gradient"}
    del content["preparation"], content["ledger"], content["overlap"]
    run = make_run(tmp_path / "run", content)
    text = everything(run)
    assert "Nothing was recovered" in text
    assert "no evidence that the target is safe" in text
    assert "3 cases: 1 failed, 2 budget" in text
    assert "ValueError: no gradient" in text
    assert "There are no measurements." in text
    assert "the budget was spent" in warnings(run)
    assert "2 cases of 3 not attacked" in warnings(run)
    assert "1 case of 3 failed" in warnings(run)
    assert "Overlap" in warnings(run)
    assert "There is nothing to show" in render(run, "html", modality=MODALITY)


def test_a_run_that_has_only_begun_renders(tmp_path: Path) -> None:
    content = manifest(2, status="attacking")
    content["cases"] = [{"id": f"class-{label}", "label": label, "status": "pending"} for label in range(2)]
    for name in ("finished", "preparation", "ledger", "overlap"):
        del content[name]
    text = everything(make_run(tmp_path / "run", content))
    assert "not finished (attacking)" in text
    assert "not recorded: the run did not end" in text


def test_one_class_makes_the_wrong_label_no_floor(tmp_path: Path) -> None:
    items = [measurement(clusters=1, bounds=None), measurement("wrong-label", 0.6)]
    run = make_run(tmp_path / "run", manifest(1), items, control=None)
    everything(run)
    assert document(run)["results"]["rows"][0]["floors"] == []
    assert "one class" in warnings(run)
    assert "Figures rest on 1 class;" in warnings(run)
    assert "No floor was measured" in warnings(run)
    assert "cannot be said" in document(run)["headline"]["verdict"]


def test_a_missing_holdout_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", measurements=figures()[:3])
    assert "no ceiling was measured" in everything(run)
    assert "No held-out data" in warnings(run)


def test_reconstructions_that_nobody_judged_are_no_result(tmp_path: Path) -> None:
    assert "no evaluator has judged them" in everything(make_run(tmp_path / "run"))


def test_failed_and_partial_cases_are_listed_with_their_errors(tmp_path: Path) -> None:
    content = manifest(4)
    content["cases"][1] |= {"status": "failed", "error": "RuntimeError: a | b\nsecond line"}
    content["cases"][2]["status"] = "partial"
    run = make_run(tmp_path / "run", content, figures())
    assert "| class-1 | failed | RuntimeError: a \\| b second line |" in everything(run)
    assert "1 case of 4 stopped early" in warnings(run)
    assert document(run)["cases"]["counts"] == {"done": 2, "failed": 1, "partial": 1}


def test_values_that_are_not_finite_are_shown_as_missing(tmp_path: Path) -> None:
    items = [measurement(value=math.nan, bounds=(-math.inf, math.inf), per_case={"class-0": math.nan})]
    text = everything(make_run(tmp_path / "run", measurements=items))
    assert "n/a \\[no interval\\]" in text
    assert "nan" not in text.lower().split()


def test_a_negative_control_is_called_one(tmp_path: Path) -> None:
    content = manifest(12)
    content["attack"]["control"] = True
    run = make_run(tmp_path / "run", content, figures())
    assert document(run)["headline"]["text"].startswith("Negative control")
    assert "negative control" in warnings(run)


def test_shared_facts_overlap_and_other_data_are_warned_of(tmp_path: Path) -> None:
    content = manifest(12)
    content["data"]["same_as_target"] = False
    content["overlap"]["public"] |= {"equal": 4, "near": 1}
    judge = {**JUDGE["evaluator-model"], "independent": False}
    judge["independence"] = {"weights": True, "architecture": False, "seed": True}
    run = make_run(tmp_path / "run", content, figures(), judges={"evaluator-model": judge})
    everything(run)
    assert "it shares with the target: architecture" in warnings(run)
    assert "5 samples of public (1%)" in warnings(run)
    assert "not the one that the target was trained on" in warnings(run)


def test_data_of_a_foreign_target_are_not_called_others(tmp_path: Path) -> None:
    content = manifest(12)
    content["data"]["same_as_target"] = None
    run = make_run(tmp_path / "run", content, figures())
    assert "trained on this data set is not known" in warnings(run)
    assert "not the one that the target was trained on" not in warnings(run)
    assert "- **trained the target**: not known" in everything(run)


def test_a_target_that_is_right_by_chance_is_warned_of(tmp_path: Path) -> None:
    content = manifest(12)
    assert "may be chance" not in warnings(make_run(tmp_path / "good", content, figures()))
    content["target"]["card"]["metrics"] = {"holdout_accuracy": 0.1, "holdout_samples": 100}
    text = warnings(make_run(tmp_path / "bad", content, figures()))
    assert "The target is right on 10% of 100 held-out samples, which may be chance: its classes" in text


def test_a_judge_with_the_targets_weights_is_self_graded(tmp_path: Path) -> None:
    judge = {**JUDGE["evaluator-model"], "independent": False, "independence": {"weights": False}}
    run = make_run(tmp_path / "run", measurements=figures(), judges={"evaluator-model": judge})
    assert "self-graded" in warnings(run)


def test_a_remote_targets_judge_cannot_be_checked(tmp_path: Path) -> None:
    judge = {**JUDGE["evaluator-model"], "independence": {}}
    run = make_run(tmp_path / "run", measurements=figures(), judges={"evaluator-model": judge})
    assert "could not be checked" in warnings(run)
    assert "could not be checked" in everything(run)


def test_a_flat_count_of_overlap_is_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", manifest(2, overlap={"equal": 3, "n": 30}))
    assert "3 samples of the public data (10%)" in warnings(run)


def test_a_ceiling_below_the_floor_and_a_point_are_warned_of(tmp_path: Path) -> None:
    items = [measurement(bounds=(0.6, 0.6)), measurement("prior-samples", 0.5), measurement("holdout", 0.4)]
    run = make_run(tmp_path / "run", measurements=items)
    assert "interval without width" in warnings(run)
    assert "the ceiling is not beyond the floors" in warnings(run)


def test_another_modalitys_overlap_is_shown_as_it_is(tmp_path: Path) -> None:
    content = manifest(2, overlap={"method": "minhash", "public": {"shared_ngrams": 7, "examples": [1]}})
    text = everything(make_run(tmp_path / "run", content))
    assert "**overlap audit**: method=minhash" in text
    assert "**overlap of public**: shared_ngrams=7" in text


def test_many_cases_show_both_ends_by_the_main_figure(tmp_path: Path) -> None:
    per_case = {f"class-{label}": label / 30 for label in range(30)}
    run = make_run(tmp_path / "run", manifest(30), figures(per_case=per_case))
    rows = [row["id"] for row in document(run)["classes"]["rows"]]
    assert rows == [f"class-{label}" for label in (*range(29, 19, -1), *range(9, -1, -1))]
    assert "The 10 cases with most, the 10 with least leakage, of 30" in everything(run)
    assert "The first 24 of 30 cases" in render(run, "html", modality=MODALITY)


def test_few_cases_are_all_shown_least_distance_first(tmp_path: Path) -> None:
    per_case = {f"class-{label}": float(label) for label in range(3)}
    run = make_run(tmp_path / "run", manifest(4), figures("down", per_case=per_case))
    rows = [row["id"] for row in document(run)["classes"]["rows"]]
    assert rows == ["class-0", "class-1", "class-2", "class-3"]


# renderings ---------------------------------------------------------------------------------------


def test_markdown_has_one_row_for_each_measurement(run: Run) -> None:
    row = next(line for line in render(run, "markdown").splitlines() if line.startswith("| accuracy@1 | accuracy@1234"))
    cells = [cell.strip().replace("\\", "") for cell in row.strip("|").split("|")]
    assert cells[2:6] == [
        "0.600 [0.550, 0.650]", "0.100 [0.050, 0.150]", "0.050 [0.000, 0.100]", "0.900 [0.850, 0.950]",
    ]  # fmt: skip
    assert cells[6:] == ["24", "12", "up", "yes", "62%"]


def test_names_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|![x](http://evil.example/a)`"
    content = manifest(2)
    content["target"]["card"]["classes"] = [evil, "plain"]
    content["attack"]["summary"] = content["attack"]["paper"] = evil
    content["notes"] = [evil]
    content["cases"][1] |= {"status": "failed", "error": evil}
    items = figures(per_case={"class-0": 1.0})
    run = make_run(tmp_path / "run", content, [*items, measurement(name=evil, evaluator=evil)])
    page = render(run, "html", modality=MODALITY)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert Page(page).tags.count("script") == 1
    text = render(run, "markdown")
    assert "<script" not in text
    assert not re.search(r"(?<!\\)!\[x\](?!\\)\(", text.replace("\\[", "").replace("\\]", ""))
    header = next(line for line in text.splitlines() if line.startswith("| case | class |"))
    row = next(line for line in text.splitlines() if line.startswith("| class-0 |"))
    bars = re.compile(r"(?<!\\)\|")
    assert len(bars.findall(row)) == len(bars.findall(header))


def test_html_loads_nothing_and_allows_its_own_script_alone(run: Run) -> None:
    text = render(run, "html", modality=MODALITY)
    page = Page(text)
    assert page.addresses == []
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in text
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"url\(|@import", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_html_is_built_for_readers_of_all_kinds(run: Run) -> None:
    text = render(run, "html", modality=MODALITY)
    page = Page(text)
    assert '<html lang="en">' in text
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.labels) <= set(page.ids)
    assert page.tags.count("table") == page.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope)[ >]", text)
    assert page.tags.count("h1") == 1


def test_recovered_samples_stand_beside_the_prior_without_private_ones(run: Run) -> None:
    page = render(run, "html", modality=MODALITY, dataset=NumberData(12))  # type: ignore[arg-type]
    assert "[[3.0], [3.0]]" in page
    assert "[[-1.0], [-1.0]]" in page
    assert "[300.0]" not in page
    assert "Private samples are not shown" in page


def test_private_samples_are_shown_when_asked(run: Run) -> None:
    data: Any = NumberData(12)
    page = render(run, "html", modality=MODALITY, dataset=data, show_private=True)
    assert "[[300.0], [300.0], [300.0]]" in page
    assert "Private samples are not shown" not in page


def test_a_redacted_report_has_no_sample(run: Run) -> None:
    data: Any = NumberData(12)
    page = render(run, "html", modality=MODALITY, dataset=data, show_private=True, redact=True)
    assert 'class="numbers"' not in page
    assert "Samples are left out" in page


def test_without_the_modality_there_are_no_samples(run: Run) -> None:
    assert "plugin of their modality is not installed" in render(run, "html")


def test_an_unknown_format_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="unknown report format"):
        render(run, "pdf")


def test_write_report_writes_three_files_and_no_private_sample(run: Run) -> None:
    data: Any = NumberData(12)
    write_report(run, MODALITY, data)
    assert json.loads((run.directory / "report.json").read_text())["schema"] == "micore.report/1"
    assert (run.directory / "report.md").read_text() == render(run, "markdown")
    assert "[300.0]" not in (run.directory / "report.html").read_text()
    assert not list(run.directory.glob(".*"))


def test_a_directory_that_cannot_be_written_is_an_error(run: Run) -> None:
    (run.directory / "report.md").mkdir()
    with pytest.raises(StorageError):
        write_report(run, MODALITY, None)


# small parts --------------------------------------------------------------------------------------


def test_the_command_repeats_the_request() -> None:
    assert attack_command(manifest()["request"]) == (
        "mi attack --plugin toy-attack --model '/models/my target.safetensors' --preset smoke --data numbers "
        "--classes 0-11 --budget-queries 5000 --seed 3 --device cpu --precision fp32 --batch 16 -p steps=70 "
        "-p loss=poincare -D public=5-9 -D size=64 -e accuracy:batch_size=8"
    )


def test_the_command_is_read_back_as_the_same_request() -> None:
    import shlex

    from micore.configs import parse_assignments

    request = manifest()["request"]
    values = {"text": "5", "flag": True, "none": None, "pair": [1, 2], "plain": "a b=c"}
    request["attack"]["config"] = values
    words = shlex.split(attack_command(request))
    settings = [words[index + 1] for index, word in enumerate(words) if word == "-p"]
    assert parse_assignments(settings) == values


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (12.345, "12.35"), (123.45, "123.5"), (0.0, "0.000"), (0.0001, "1.00e-04"), (3, "3"),
     (12345, "12,345"), (None, "n/a"), (math.inf, "n/a"), (2.5e7, "2.50e+07"), (-0.25, "-0.250")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_amounts_of_memory() -> None:
    assert [size(value) for value in (None, 0, 56_000_000, 1_234_000_000)] == ["n/a", "0 MB", "56 MB", "1.23 GB"]


def test_durations_and_plurals() -> None:
    assert (duration(None), duration(1.0), duration(600), duration(36000)) == (
        "n/a",
        "1.0 s",
        "10.0 min",
        "10.0 h",
    )
    assert (plural(1, "case"), plural(0, "case"), plural(2, "class", "classes")) == (
        "1 case",
        "0 cases",
        "2 classes",
    )


def test_tables_stay_tables() -> None:
    assert escape("a|b\n*c* <d>") == "a\\|b \\*c\\* &lt;d&gt;"
    assert table(("a", "b"), [("1", "x|y")]).splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x\\|y |"]


@pytest.mark.parametrize(
    ("name", "part"),
    [("accuracy@1", "fooled by patterns"), ("confidence", "surer than they are right"),
     ("distance-public", "public data"), ("distance", "nearest private sample"),
     ("face_verified", "threshold"), ("vlm-accuracy", "vision-language"), ("vlm-refused", "nothing was left out"),
     ("distance-ratio", "held-out"), ("lpips", "photographs"), ("nearest-hit", "nearest one of some sample"),
     ("duplicates", "twin"), ("made-up", "`mi show judge`"), ("fid", "domain as a whole")],
)  # fmt: skip
def test_every_measurement_is_explained(name: str, part: str) -> None:
    text = explain(name, "judge@123", "share", "up")
    assert part in text
    assert text.endswith("Unit: share; higher is more leakage.")
