"""The table that a command prints of a run: each figure beside the floor that is hardest to beat."""

from __future__ import annotations

from micore.cli.outcome import summary
from micore.contracts import Measurement
from micore.report.findings import Finding
from tests.run_directories import measurement


def finding(*subjects: Measurement, floors: tuple[str, ...], ceiling: str | None = None) -> Finding:
    first = subjects[0]
    return Finding(
        name=first.name, evaluator=first.evaluator, unit=first.unit, direction=first.direction,
        subjects={item.subject: item for item in subjects}, floors=floors, ceiling=ceiling,
    )  # fmt: skip


def test_the_hardest_floor_stands_with_its_name() -> None:
    attack = measurement("attack", 0.6, (0.5, 0.7))
    others = measurement("no-target", 0.4), measurement("evidence", 0.45), measurement("holdout", 0.9)
    (row,) = summary([finding(attack, *others, floors=("no-target", "evidence"), ceiling="holdout")])
    assert row[2:] == ("0.600", "0.500 to 0.700", "0.450 evidence", "0.900")


def test_for_a_distance_the_hardest_floor_is_the_lowest() -> None:
    attack = measurement("attack", 3.0, None, direction="down")
    floors = measurement("prior-samples", 5.0, direction="down"), measurement("nearest-public", 4.0, direction="down")
    (row,) = summary([finding(attack, *floors, floors=("prior-samples", "nearest-public"))])
    assert row[2:] == ("3.000", "unknown", "4.000 nearest-public", "-")


def test_a_figure_without_an_attack_or_a_floor() -> None:
    alone = finding(measurement("attack", 0.6), floors=("prior-samples",))
    control = finding(measurement("prior-samples", 0.1), floors=("prior-samples",))
    assert [row[4] for row in summary([alone, control])] == ["-"]
