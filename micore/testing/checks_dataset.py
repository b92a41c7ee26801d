"""Checks of data sets: bundled ones, and others when they are given a location."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from micore.contracts import Dataset, Modality, Split
from micore.errors import MiError
from micore.testing.bench import Bench
from micore.testing.checks_plugin import PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, same, scrambled
from micore.testing.report import Check, require, skip
from micore.testing.setting import ToySetting

LOOKED_AT = 64
"""Samples of a split that are read."""


class DatasetBench(Bench):
    """A data set under check; the option ``location`` says where a data set that is not bundled lies."""

    @cached_property
    def location(self) -> str | None:
        """Where the data lie."""
        location: str | None = self.options.pop("location", None)
        if not self.spec.bundled and location is None:
            skip("not bundled; give its location")
        return location

    @cached_property
    def dataset(self) -> Dataset:
        """The data set with its default options."""
        return self.open()

    def open(self, **options: Any) -> Dataset:
        """Open the data set."""
        location = self.location
        dataset: Dataset = self.kind(location, **{**self.options, **options})
        return dataset

    @cached_property
    def setting(self) -> ToySetting:
        """The modality's toy problem, for what it knows of sound samples."""
        return self.lab.setting(self.spec.modality)

    @cached_property
    def modality(self) -> Modality:
        """The data set's modality."""
        return self.lab.modality(self.spec.modality)

    def splits(self) -> dict[str, Split]:
        """Return the splits that the spec promises."""
        return {name: self.dataset.split(name) for name in self.spec.splits}

    def content(self, dataset: Dataset) -> dict[str, Any]:
        """Return what is compared of a data set: sizes, and the first samples with their labels."""
        found: dict[str, Any] = {"classes": list(dataset.classes)}
        for name in self.spec.splits:
            split = dataset.split(name)
            n = min(LOOKED_AT, len(split))
            found[name] = [len(split), self.modality.pack(split.take(range(n))), split.labels]
        return found


def splits_are_not_empty(bench: DatasetBench) -> None:
    """A run that finds its data empty fails late."""
    for name, split in bench.splits().items():
        require(len(split) > 0, f"split {name!r} is empty")
        one = split.take(range(min(3, len(split))))
        require(len(one) == min(3, len(split)), f"split {name!r} gives {len(one)} samples for 3")


def unknown_split_is_refused(bench: DatasetBench) -> None:
    """A misspelt split must not become another one."""
    try:
        bench.dataset.split("no-such-split")
    except MiError:
        return
    require(False, "split('no-such-split') gives something")


def samples_are_canonical(bench: DatasetBench) -> None:
    """Attacks, priors and judges all work in the modality's canonical range."""
    shape = bench.dataset.input.shape
    for name, split in bench.splits().items():
        samples = split.take(torch.linspace(0, len(split) - 1, min(LOOKED_AT, len(split))).long())
        problem = _range_problem(bench, samples)
        require(problem is None, f"split {name!r}: {problem}")
        adapted = bench.modality.adapter(bench.dataset.input)(samples)
        require(_fits(tuple(adapted.shape[1:]), shape, samples), f"split {name!r} does not fit its own input {shape}")


def _fits(given: tuple[int, ...], shape: tuple[int, ...], samples: Any) -> bool:
    """Tell whether inputs have the shape of a model's; such of sequences may be shorter than the longest there are."""
    if isinstance(samples, torch.Tensor):
        return given == tuple(shape)
    return len(given) == len(shape) and all(found <= most for found, most in zip(given, shape, strict=True))


def _range_problem(bench: DatasetBench, samples: Any) -> str | None:
    """Ask the toy problem; its samples may have another shape, which is no problem here."""
    problem = bench.setting.problem(samples)
    return None if problem and " have shape " in problem else problem


def labels_are_classes(bench: DatasetBench) -> None:
    """A label without a class, or a class without a sample, cannot be attacked or judged."""
    if getattr(bench.dataset, "transcribed", False):
        skip("labels are transcripts, coded as numbers")
    n = len(bench.dataset.classes)
    for name, split in bench.splits().items():
        if name == "public":
            continue
        labels = split.labels
        require(labels is not None and labels.dtype == torch.int64, f"split {name!r} has no int64 labels")
        found = set(labels.tolist()) if labels is not None else set()
        require(found <= set(range(n)), f"split {name!r} has labels outside its {n} classes")
        require(name != "private" or len(found) == n, f"split {name!r} has no sample of some class")


def judging_begins_with_the_private_classes(bench: DatasetBench) -> None:
    """A judge's class k must be the target's class k."""
    split, classes = bench.dataset.judging()
    own = bench.dataset.classes
    require(tuple(classes[: len(own)]) == tuple(own), f"judging classes {classes[:5]} do not begin with {own[:5]}")
    labels = split.labels
    require(labels is not None and len(labels) == len(split), "judging data have no labels")
    found = set(labels.tolist()) if labels is not None else set()
    require(found == set(range(len(classes))), "judging labels are not those of its classes")


def fingerprint_is_stable(bench: DatasetBench) -> None:
    """Caches and resumed runs recognise data by the fingerprint."""
    again = bench.open(**bench.dataset.options)
    require(again.fingerprint == bench.dataset.fingerprint, "opened again, it has another fingerprint")
    require(same(bench.content(again), bench.content(bench.dataset)), "opened again, it has other samples")


def fingerprint_sees_every_change(bench: DatasetBench) -> str:
    """A fingerprint that misses a change lets a cache answer for other data."""
    seen = []
    for name, value in bench.dataset.options.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        try:
            other = bench.open(**{**bench.dataset.options, name: value + 1})
        except MiError:
            continue
        changed = not same(bench.content(other), bench.content(bench.dataset))
        equal = other.fingerprint == bench.dataset.fingerprint
        require(not (changed and equal), f"option {name} changes the samples, but not the fingerprint")
        seen.append(name)
    return f"tried: {', '.join(seen) or 'nothing'}"


def unknown_option_is_refused(bench: DatasetBench) -> None:
    """A misspelt option that is silently ignored makes a wrong experiment."""
    try:
        bench.open(no_such_option_=1)
    except MiError:
        return
    require(False, "an unknown option is accepted")


def global_generators_are_untouched(bench: DatasetBench) -> None:
    """Drawing a split from a global generator makes it depend on what ran before."""
    with scrambled(1):
        before = global_streams()
        dataset = bench.open()
        for name in bench.spec.splits:
            dataset.split(name).take([0])
        changed = differences(before, global_streams())
    require(not changed, f"moved the global generator of {', '.join(changed)}")


DATASET_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    splits_are_not_empty,
    unknown_split_is_refused,
    samples_are_canonical,
    labels_are_classes,
    judging_begins_with_the_private_classes,
    fingerprint_is_stable,
    fingerprint_sees_every_change,
    unknown_option_is_refused,
    global_generators_are_untouched,
)
