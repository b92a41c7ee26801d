"""``mi quickstart``: one command from nothing to the report, and a second call does nothing twice."""

from __future__ import annotations

from micore.runs import Run


def test_quickstart_makes_target_run_and_report(mi, tmp_path):
    arguments = ("quickstart", "-o", tmp_path / "quick", "--preset", "smoke", "--device", "cpu")
    first = mi(*arguments)
    assert first.exit_code == 0, first.stderr
    assert "accuracy@1" in first.stdout
    assert (tmp_path / "quick" / "plmi" / "report.html").exists()
    page = (tmp_path / "quick" / "plmi" / "report.html").read_text()
    assert "Private samples are not shown" not in page, "bundled data are nobody's secret"
    run = Run.open(tmp_path / "quick" / "plmi")
    assert run.manifest["target"]["card"]["metrics"]["holdout_accuracy"] >= 0.97
    before = (tmp_path / "quick" / "target.safetensors").stat().st_mtime_ns
    second = mi(*arguments)
    assert second.exit_code == 0, second.stderr
    assert (tmp_path / "quick" / "target.safetensors").stat().st_mtime_ns == before
    assert "training the target" not in second.stderr
    assert second.stdout == first.stdout


def test_a_plan_in_words(mi, target):
    result = mi("plan", "--plugin", "plmi", "--model", target, "--preset", "smoke", "--budget-queries", "10")
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    found = {name.strip(): value.strip() for name, value in lines.items()}
    assert found["access"] == "white-box"
    assert found["within budget"] == "False"
    assert found["cases"].startswith("5: class-0, class-1")
