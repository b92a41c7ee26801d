"""Checks of trackers: that they see whole runs and resumed ones, and leave no mark on a result or on the process."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from micore.runs import Run
from micore.testing.bench import Bench
from micore.testing.checks_plugin import PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, scrambled
from micore.testing.report import Check, require
from micore.testing.toy_runs import ToyRuns
from micore.testing.toys import ToyModality

PASSING = ("created", "finished", "timings", "peak_memory_bytes", "preparation", "request")
"""What two equal runs differ in: times, memory, the cache, and a budget that one of them had."""


@dataclass
class Watched:
    """What runs came to, and what happened beside them. ``found``: the results, by the run's name."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    printed: str = ""
    changed: list[str] = field(default_factory=list)
    streams: dict[str, Any] = field(default_factory=dict)


class TrackerBench(Bench):
    """A tracker under check, set up as the environment says."""

    @property
    def plain(self) -> Watched:
        """The runs without it."""
        return self._both[0]

    @property
    def watched(self) -> Watched:
        """The runs with it."""
        return self._both[1]

    @cached_property
    def _both(self) -> tuple[Watched, Watched]:
        observers = {self.entry.provider.name: self.registry.plugin_of(self.entry)}
        with tempfile.TemporaryDirectory() as directory:  # one, so that they attack the same target
            return _observe(Path(directory), "plain", {}), _observe(Path(directory), "watched", observers)


def _observe(directory: Path, name: str, observers: dict[str, object]) -> Watched:
    """Make a whole run, and one in two sittings."""
    seen, printed = Watched(), io.StringIO()
    with contextlib.redirect_stdout(printed), scrambled(1):
        runs = ToyRuns(directory, observers, seen.failures.append)
        runs.attack(f"{name}-first")  # trains the target, and lets the tracker import what it needs
        before = _process()
        seen.found["whole"] = results(runs.attack(f"{name}-whole"))
        half = runs.attack(f"{name}-resumed", cases=2)
        seen.found["half"] = results(half)
        seen.found["resumed"] = results(runs.resume(half))
        after = _process()
        seen.changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        seen.streams = global_streams()
    seen.printed = printed.getvalue()
    return seen


def _process() -> dict[str, str]:
    """Return what other parts of the process rely on."""
    return {**os.environ, "the working directory": str(Path.cwd())}


def results(run: Run) -> dict[str, Any]:
    """Return what a run found and says of itself, as it is on the disk, without what differs from run to run."""
    stored = Run.open(run.directory)
    manifest = {name: value for name, value in stored.manifest.items() if name not in PASSING}
    manifest["cases"] = [{**row, "seconds": None} for row in manifest["cases"]]
    modality = ToyModality()
    controls = stored.controls(modality)
    return {
        "manifest": manifest,
        "measurements": stored.measurements(),
        "reconstructions": {item.case.id: _plain(item) for item in stored.reconstructions(modality)},
        "controls": {name: [_plain(item) for item in items] for name, items in controls.items()},
        "files": sorted(path.name for path in run.directory.iterdir()),
    }


def _plain(item: Any) -> tuple[Any, ...]:
    return (item.samples.tolist(), item.scores.tolist(), dict(item.history), item.complete)


def it_does_not_fail(bench: TrackerBench) -> None:
    """A failing tracker stops nothing, but a warning in every run is none of the user's business."""
    failures = bench.watched.failures
    require(not failures, f"{len(failures)} calls failed; the first: {failures[0] if failures else ''}")


def results_stay_as_they_are(bench: TrackerBench) -> None:
    """Observers see the records of a run itself; what they change there would be believed."""
    for name in ("whole", "half"):
        _require_equal(bench.plain.found[name], bench.watched.found[name], f"of the {name} run")


def a_resumed_run_stays_as_it_is(bench: TrackerBench) -> None:
    """A second sitting starts the run again under the tracker's eyes: it must not begin anew, or be lost."""
    _require_equal(bench.plain.found["resumed"], bench.watched.found["resumed"], "of the resumed run")
    for part in ("measurements", "reconstructions"):
        same = bench.watched.found["resumed"][part] == bench.watched.found["whole"][part]
        require(same, f"the {part} of the resumed run are not those of the whole one")


def _require_equal(expected: dict[str, Any], found: dict[str, Any], whose: str) -> None:
    missing = set(expected["files"]) - set(found["files"])
    require(not missing, f"the files {', '.join(sorted(missing))} {whose} are gone")
    changed = [name for name in expected if name != "files" and expected[name] != found[name]]
    require(not changed, f"the {' and '.join(changed)} {whose} are not those without the tracker")


def nothing_is_printed(bench: TrackerBench) -> None:
    """Stdout carries results only: with ``--json`` it is one document."""
    require(not bench.watched.printed, f"wrote to stdout: {bench.watched.printed.strip()[:100]!r}")


def the_process_is_left_as_it_was(bench: TrackerBench) -> None:
    """Variables, directory and generators belong to everyone; what comes after the run relies on them."""
    changed = [name for name in bench.watched.changed if name not in bench.plain.changed]
    changed += [f"the generator of {name}" for name in differences(bench.plain.streams, bench.watched.streams)]
    require(not changed, f"changed {', '.join(sorted(changed))}")


TRACKER_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    it_does_not_fail,
    results_stay_as_they_are,
    a_resumed_run_stays_as_it_is,
    nothing_is_printed,
    the_process_is_left_as_it_was,
)
