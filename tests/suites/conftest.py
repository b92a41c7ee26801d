"""Suites of toy plugins, and processes that only pretend to train and attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from micore.report import write_report
from micore.runs import Run
from micore.suites import launchers
from micore.suites.processes import Outcome
from tests.run_directories import figures, make_run, manifest

SUITE = """
name = "toy"
seeds = [0, 1]
[[target]]
name = "grids"
data = "grids"
data_options = { size = 4 }
model = "conv"
[[attack]]
plugin = "scripted"
[[attack]]
plugin = "by-label"
seeds = [0]
"""


@dataclass
class Pretended:
    """Answers calls of ``mi`` as real ones would, in no time; a test says which go wrong.

    calls: the arguments of each; errors: what a call says whose arguments hold this text; killed: runs that stop in
    the middle.
    """

    calls: list[list[str]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    raises: dict[str, BaseException] = field(default_factory=dict)
    shift: float = 0.0

    @property
    def names(self) -> list[str]:
        """The command of each call."""
        return [call[0] for call in self.calls]

    def __call__(self, arguments: Sequence[str], log: Path, held: int | None = None) -> Outcome:
        self.calls.append(list(arguments))
        text = " ".join(arguments)
        error = next((error for part, error in self.errors.items() if part in text), None)
        raised = next((error for part, error in self.raises.items() if part in text), None)
        getattr(self, arguments[0])(list(arguments), stopped=bool(error or raised))
        if raised is not None:
            raise raised
        spent = "--budget-queries" in arguments and not error
        return Outcome(code=1 if error else 7 if spent else 0, seconds=1.5, error=error or ("spent" if spent else None))

    def train(self, arguments: list[str], stopped: bool) -> None:
        if not stopped:
            place = Path(arguments[arguments.index("-o") + 1])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"weights")

    def attack(self, arguments: list[str], stopped: bool) -> None:
        place = Path(arguments[arguments.index("-o") + 1])
        seed = int(arguments[arguments.index("--seed") + 1])
        ended = "budget" if "--budget-queries" in arguments else "finished"
        content = manifest(status="failed" if stopped else ended, seed=seed)
        content |= {"timings": {"attack_s": 18.5, "evaluate_s": 4.0}}
        content["peak_memory_bytes"] = {"process": 700_000_000, "accelerator": None}
        content["hardware"] |= {"tile": 32, "precision": "fp32"}
        items = figures()
        if seed:
            items[0] = bench_measurement(items[0], 0.1 * seed)
        run = make_run(place, content, [] if stopped else items)
        write_report(run, None, None)

    def resume(self, arguments: list[str], stopped: bool) -> None:
        if not stopped:
            run = Run.open(Path(arguments[1]))
            run.update(status="finished")
            run.write_measurements(figures(), {})
            write_report(run, None, None)

    def evaluate(self, arguments: list[str], stopped: bool) -> None:
        Run.open(Path(arguments[1]))


def bench_measurement(item: Any, shift: float) -> Any:
    """Move a measurement's value."""
    from dataclasses import replace

    return replace(item, value=item.value + shift)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three rows on two targets."""
    path = tmp_path / "toy.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """Let no process start."""
    found = Pretended()
    monkeypatch.setattr(launchers, "call", found)
    return found


@pytest.fixture
def run_suite(suite: Path, tmp_path: Path, pretended: Pretended) -> Callable[..., dict[str, Any]]:
    """Run the toy suite with these fields of its options."""
    from micore.suites import Options
    from micore.suites import run_suite as run
    from tests import toys

    def start(**options: Any) -> dict[str, Any]:
        said = options.pop("said", [])
        return run(toys.registry(), suite, tmp_path / "out", Options(**options), say=said.append)

    return start
