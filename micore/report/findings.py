"""One figure beside its floors and its ceiling: what a table of measurements means.

Shared by reports and comparisons. Nothing of `micore.runs` is imported at the top, since that package
imports this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from micore.contracts import Interval, Measurement
from micore.report.figures import finite

if TYPE_CHECKING:
    from micore.runs.store import Run

FURTHER_FLOORS = ("nearest-public",)
"""Controls that evaluators add: what an adversary has without the target."""

OVERALL = "up", "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A measurement name of one evaluator for every subject that was judged.

    floors, ceiling: which of the subjects bound what the attack could score.
    """

    name: str
    evaluator: str
    unit: str
    direction: str
    subjects: Mapping[str, Measurement]
    floors: Sequence[str]
    ceiling: str | None

    @property
    def attack(self) -> Measurement | None:
        """The attack's own figure."""
        from micore.runs.subjects import ATTACK

        return self.subjects.get(ATTACK)

    @property
    def highest_floor(self) -> Measurement | None:
        """The floor that is hardest to beat."""
        return self._hardest(lambda item: finite(item.value))

    @property
    def beats_floor(self) -> bool | None:
        """Whether the attack's interval lies entirely beyond the value of every floor.

        None when that cannot be said: no direction, no interval or no floor.
        """
        floor = self.highest_floor
        edge = self._near_edge
        if edge is None or floor is None:
            return None
        return self._beyond(edge, floor.value)

    @property
    def overlaps_floor(self) -> bool | None:
        """Whether the attack's interval meets the interval of a floor, which is uncertain too."""
        edge = self._near_edge
        floor = self._hardest(lambda item: _far_edge(item.interval, self.direction))
        if edge is None or floor is None:
            return None
        far = _far_edge(floor.interval, self.direction)
        return far is not None and not self._beyond(edge, far)

    @property
    def reach(self) -> float | None:
        """How far the attack came from its highest floor (0) to the ceiling (1)."""
        attack, floor, ceiling = self.attack, self.highest_floor, self._ceiling
        if attack is None or floor is None or ceiling is None or not self.ceiling_beyond_floor:
            return None
        return finite((attack.value - floor.value) / (ceiling.value - floor.value))

    @property
    def ceiling_beyond_floor(self) -> bool | None:
        """Whether the evaluator tells real samples from none at all; None when a bound is missing."""
        floor, ceiling = self.highest_floor, self._ceiling
        if floor is None or ceiling is None:
            return None
        return self._beyond(ceiling.value, floor.value)

    @property
    def _ceiling(self) -> Measurement | None:
        return self.subjects.get(self.ceiling) if self.ceiling else None

    @property
    def _near_edge(self) -> float | None:
        attack = self.attack
        if attack is None or attack.interval is None or self.direction not in OVERALL:
            return None
        return finite(attack.interval.low if self.direction == "up" else attack.interval.high)

    def _beyond(self, value: float, floor: float) -> bool:
        return value > floor if self.direction == "up" else value < floor

    def _hardest(self, key: Any) -> Measurement | None:
        if self.direction not in OVERALL:
            return None
        present = [self.subjects[name] for name in self.floors if name in self.subjects]
        present = [item for item in present if key(item) is not None]
        pick = max if self.direction == "up" else min
        return pick(present, key=key) if present else None


def _far_edge(bounds: Interval | None, direction: str) -> float | None:
    if bounds is None:
        return None
    return finite(bounds.high if direction == "up" else bounds.low)


def findings(run: Run) -> list[Finding]:
    """Group a run's measurements by evaluator and name, in the order they were written."""
    from micore.runs.subjects import CEILING, SNAPSHOT

    floors = floor_names(run)
    groups: dict[tuple[str, str], dict[str, Measurement]] = {}
    for item in run.measurements():
        if item.subject.startswith(SNAPSHOT):  # they make a curve (`micore.report.curves`), not a column
            continue
        groups.setdefault((item.evaluator, item.name), {})[item.subject] = item
    found = []
    for (evaluator, name), subjects in groups.items():
        first = next(iter(subjects.values()))
        found.append(
            Finding(
                name=name, evaluator=evaluator, unit=first.unit, direction=first.direction, subjects=subjects,
                floors=floors, ceiling=CEILING if CEILING in subjects else None,
            )
        )  # fmt: skip
    return found


def floor_names(run: Run) -> tuple[str, ...]:
    """Return the subjects that are floors: built in, added by evaluators, and the run's controls.

    With a single class the wrong label is the right one, so that control is no floor.
    """
    from micore.runs.subjects import FLOORS, WRONG_LABEL

    stored = sorted(run.directory.glob("control-*.safetensors"))
    controls = [path.stem.removeprefix("control-") for path in stored]
    names = dict.fromkeys((*FLOORS, *FURTHER_FLOORS, *controls))
    if len(class_names(run)) == 1:
        names.pop(WRONG_LABEL, None)
    return tuple(names)


def class_names(run: Run) -> Sequence[str]:
    """Return the names of the target's classes, by label."""
    names: Sequence[str] = run.manifest["target"]["card"]["classes"]
    return names


def main_finding(candidates: Iterable[Finding]) -> Finding | None:
    """Choose the figure of the headline: a share that rises with leakage and has a floor, if there is one."""
    usable = [item for item in candidates if item.attack and finite(item.attack.value) is not None]
    if not usable:
        return None
    return min(usable, key=_preference)


def _preference(item: Finding) -> tuple[int, ...]:
    """Return what is compared; of figures that are alike otherwise the one of most cases goes first."""
    return (
        item.direction not in OVERALL,
        item.beats_floor is None,
        item.unit not in ("share", "rate", "fraction"),
        item.direction != "up",
        -item.attack.clusters if item.attack else 0,
    )


def subject_order(items: Iterable[Finding]) -> list[str]:
    """Return the names of all subjects: the attack, its floors, the ceiling, then others."""
    from micore.runs.subjects import ATTACK, CEILING

    items = list(items)
    floors = [name for item in items for name in item.floors]
    seen = dict.fromkeys(name for item in items for name in item.subjects)
    order = dict.fromkeys((ATTACK, *floors, CEILING, *seen))
    return [name for name in order if name in seen]
