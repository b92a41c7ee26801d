"""Trackers that each break one rule."""

from __future__ import annotations

import os
import shutil
import sys

import torch
from toy_plugins import Collection

from micore.hookspecs import hookimpl

broken = Collection("tracker")


@broken("it-does-not-fail", says="2 calls failed")
class FailsOnResume:
    """Refuse a run that it knows, at its start and at its end."""

    def __init__(self):
        self.known = set()

    @hookimpl
    def mi_run_started(self, run):
        if run.id in self.known:
            raise ValueError("known")
        self.known.add(run.id)

    @hookimpl
    def mi_run_finished(self, run):
        if run.id.endswith("first"):
            raise ValueError("the first")


@broken("results-stay-as-they-are", says="manifest")
class WritesIntoManifest:
    """Add a note."""

    @hookimpl
    def mi_run_started(self, run):
        run.manifest["notes"] = ["seen"]


@broken("results-stay-as-they-are", says="the controls of the whole run")
class AddsControls:
    """Keep a copy where controls are looked for."""

    @hookimpl
    def mi_run_finished(self, run):
        for path in run.directory.glob("control-prior-samples.safetensors"):
            shutil.copy(path, run.directory / "control-mine.safetensors")


@broken("results-stay-as-they-are", says="are gone")
class TidiesUp:
    """Delete the report."""

    @hookimpl
    def mi_run_finished(self, run):
        (run.directory / "report.md").unlink()


@broken("a-resumed-run-stays-as-it-is", says="of the resumed run")
class NotesSecondSittings:
    """Write a note into the manifest of a run that is there again."""

    def __init__(self):
        self.known = set()

    @hookimpl
    def mi_run_started(self, run):
        if run.id in self.known:
            run.manifest["notes"] = ["again"]
        self.known.add(run.id)


@broken("nothing-is-printed", says="class-0")
class Prints:
    """Print each case."""

    @hookimpl
    def mi_case_done(self, case):
        sys.stdout.write(case.id)


@broken("the-process-is-left-as-it-was", says="TOY_TRACKER")
class SetsVariables:
    """Leave a variable for each run."""

    @hookimpl
    def mi_run_started(self, run):
        os.environ["TOY_TRACKER"] = run.id


@broken("the-process-is-left-as-it-was", says="the generator of torch")
class DrawsNumbers:
    """Draw a number for each case."""

    @hookimpl
    def mi_case_done(self, case):
        torch.rand(())
