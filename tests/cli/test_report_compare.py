"""``mi report`` and ``mi compare``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from micore.cli.app import App
from micore.errors import GateFailed, RunError, UsageError
from micore.hookspecs import hookimpl
from micore.registry import Registry
from micore.runs import Run
from micore.specs import DatasetSpec, ModalitySpec
from tests.run_directories import NumberData, NumberModality, figures, make_run, manifest

Mi = Callable[..., Result]


class Plugin:
    """Offers the modality and data of the runs."""

    @hookimpl
    def mi_modalities(self) -> list[ModalitySpec]:
        return [ModalitySpec(name="numbers", target=f"{__name__}:NumberModality", summary="Numbers")]

    @hookimpl
    def mi_datasets(self) -> list[DatasetSpec]:
        target = f"{__name__}:open_numbers"
        return [DatasetSpec(name="numbers", target=target, summary="N", modality="numbers", licence="none")]


def open_numbers(location: str | None, **options: Any) -> NumberData:
    return NumberData(12)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", measurements=figures(per_case={"class-1": 0.5, "class-2": 0.25}))


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line find the toy plugin only."""
    assert NumberModality
    registry = Registry.from_plugins({"toys": Plugin()})
    monkeypatch.setattr(App, "plugins", property(lambda app: registry))


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(App, "plugins", property(lambda app: Registry()))


def test_report_prints_markdown(mi: Mi, run: Run) -> None:
    result = mi("report", str(run.directory))
    assert result.exit_code == 0
    assert result.stdout.startswith("# Run run: how much does the target give away?")
    assert result.stderr == ""


def test_report_prints_json(mi: Mi, run: Run) -> None:
    result = mi("report", str(run.directory), "--json")
    assert json.loads(result.stdout)["schema"] == "micore.report/1"


@pytest.mark.usefixtures("plugins")
def test_report_writes_files(mi: Mi, run: Run, tmp_path: Path) -> None:
    page, text = tmp_path / "out" / "a.html", tmp_path / "a.md"
    result = mi("report", str(run.directory), "--html", str(page), "--markdown", str(text))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"wrote {page}", f"wrote {text}"]
    assert "[[3.0], [3.0]]" in page.read_text()
    assert "[300.0]" not in page.read_text()
    assert text.read_text().startswith("# Run run")


@pytest.mark.usefixtures("plugins")
def test_report_shows_private_samples_only_when_asked(mi: Mi, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    assert mi("report", str(run.directory), "--html", str(page), "--show-private").exit_code == 0
    assert "[300.0]" in page.read_text()


@pytest.mark.usefixtures("plugins")
def test_report_shows_no_private_samples_of_other_data(mi: Mi, tmp_path: Path) -> None:
    content = manifest()
    content["data"]["fingerprint"] = "other"
    run, page = make_run(tmp_path / "run", content), tmp_path / "a.html"
    result = mi("report", str(run.directory), "--html", str(page), "--show-private")
    assert result.exit_code == 0
    assert "the data set has changed since the run" in result.stderr
    assert "[300.0]" not in page.read_text()


@pytest.mark.usefixtures("no_plugins")
def test_report_renders_without_modality_and_data(mi: Mi, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    result = mi("report", str(run.directory), "--html", str(page), "--show-private")
    assert result.exit_code == 0
    assert "the report shows no samples" in result.stderr
    assert "the report shows no private samples" in result.stderr
    assert "plugin of their modality is not installed" in page.read_text()


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("level", "shown"),
    [("none", ()), ("recovered", ("3.0",)), ("evidence", ("3.0", "-1.0")), ("private", ("3.0", "-1.0", "300.0"))],
)
def test_each_level_shows_more_samples(mi: Mi, tmp_path: Path, level: str, shown: tuple[str, ...]) -> None:
    run, page = make_run(tmp_path / "run", control="evidence"), tmp_path / "a.html"
    assert mi("report", str(run.directory), "--html", str(page), "--samples", level).exit_code == 0
    found = [value for value in ("3.0", "-1.0", "300.0") if f"[[{value}]" in page.read_text()]
    assert found == list(shown)


@pytest.mark.usefixtures("plugins")
def test_blurred_samples_stand_before_recovered_ones(mi: Mi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, page = make_run(tmp_path / "run", control="evidence"), tmp_path / "a.html"
    options = ("report", str(run.directory), "--html", str(page), "--samples", "blurred")
    assert mi(*options).exit_code == 0
    assert "this modality cannot show them blurred" in page.read_text()
    assert "3.0" not in page.read_text()
    show = staticmethod(lambda samples, limit: f"<i>{len(samples[:limit])} rows</i>")
    monkeypatch.setattr(NumberModality, "show_blurred", show, raising=False)
    assert mi(*options).exit_code == 0
    assert page.read_text().count("<i>2 rows</i>") == 12  # what was recovered, not what the adversary held
    assert "3.0" not in page.read_text()


@pytest.mark.usefixtures("no_plugins")
def test_a_redacted_report_needs_no_plugin(mi: Mi, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    result = mi("report", str(run.directory), "--html", str(page), "--redact")
    assert (result.exit_code, result.stderr) == (0, f"wrote {page}\n")
    assert "numbers&#34;" not in page.read_text()
    assert 'class="numbers"' not in page.read_text()


@pytest.mark.usefixtures("no_plugins")
def test_a_failed_gate_has_an_exit_code_of_its_own_and_all_files(mi: Mi, run: Run, tmp_path: Path) -> None:
    table, xml = tmp_path / "a.csv", tmp_path / "a.xml"
    files = ("--csv", str(table), "--junit", str(xml))
    result = mi("report", str(run.directory), *files, "--fail-if", "accuracy > floor", "--fail-if", "accuracy > 0.9")
    assert result.exit_code == GateFailed.exit_code == 15
    assert result.stdout.splitlines() == [
        "passed: the attack came to its end (finished)",
        "failed: accuracy > floor (accuracy@1 by accuracy@1234: 0.6 is > 0.1)",
        "passed: accuracy > 0.9 (accuracy@1 by accuracy@1234: 0.6 is not > 0.9)",
    ]
    assert "1 of 3 gates not passed: accuracy > floor" in result.stderr
    assert table.read_text().startswith("name,evaluator,subject,value,")
    assert xml.read_text().count("<testcase") == 3


@pytest.mark.usefixtures("no_plugins")
def test_gates_that_pass_end_well(mi: Mi, run: Run) -> None:
    result = mi("report", str(run.directory), "--json", "--fail-if", "accuracy > 0.9")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [gate["status"] for gate in json.loads(result.stdout)["gates"]] == ["passed", "passed"]


def test_a_gate_that_cannot_be_read_writes_nothing(mi: Mi, run: Run, tmp_path: Path) -> None:
    xml = tmp_path / "a.xml"
    result = mi("report", str(run.directory), "--junit", str(xml), "--fail-if", "acuracy > 0.9")
    assert result.exit_code == UsageError.exit_code
    assert "it has accuracy@1" in result.stderr
    assert not xml.exists()


def test_options_that_contradict_each_other(mi: Mi, run: Run, tmp_path: Path) -> None:
    page = str(tmp_path / "a.html")
    for options in (
        ["--redact"],
        ["--show-private"],
        ["--html", page, "--redact", "--show-private"],
        ["--samples", "none"],
        ["--html", page, "--redact", "--samples", "recovered"],
    ):
        assert mi("report", str(run.directory), *options).exit_code == UsageError.exit_code
    assert not Path(page).exists()


def test_a_directory_that_is_no_run(mi: Mi, tmp_path: Path, run: Run) -> None:
    assert mi("report", str(tmp_path)).exit_code == RunError.exit_code
    assert mi("compare", str(run.directory), str(tmp_path)).exit_code == RunError.exit_code


def test_compare(mi: Mi, run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", measurements=figures(per_case={"class-1": 0.25, "class-2": 0.0}))
    result = mi("compare", str(run.directory), str(other.directory))
    assert result.exit_code == 0
    assert result.stdout.startswith("# Comparison of runs")
    document = json.loads(mi("compare", str(run.directory), str(other.directory), "--json").stdout)
    assert document["rows"][0]["entries"][1]["difference"] == -0.25


def test_compare_needs_two_runs(mi: Mi, run: Run) -> None:
    assert mi("compare", str(run.directory)).exit_code == UsageError.exit_code
    assert mi("compare").exit_code == 2
