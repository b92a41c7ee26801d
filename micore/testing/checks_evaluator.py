"""Checks of evaluators: that their figures mean what they say."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from micore.contracts import Measurement, Reconstruction, Reference, Subject
from micore.measurements import measurement_to_dict
from micore.runs.evaluation import NEEDS_JUDGE, NEEDS_PANEL
from micore.runs.subjects import truths
from micore.testing.bench import Bench
from micore.testing.checks_plugin import CONFIG_CHECKS, PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, same, scrambled
from micore.testing.devices import pretend_accelerator
from micore.testing.report import Check, require, skip

BOUNDED = {"share": (0.0, 1.0), "probability": (0.0, 1.0), "fraction": (0.0, 1.0), "%": (0.0, 100.0)}
OF_THE_USER = {"weights": "a file of weights", "endpoint": "an address"}
"""Needs that no toy problem has."""
TRUTH, NOISE, TWIN = "attack", "noise", "twin"
SAMPLES = 3


class EvaluatorBench(Bench):
    """An evaluator under check, and what it judges: private samples, noise, the private samples again."""

    @cached_property
    def subjects(self) -> list[Subject]:
        """The perfect attack, no attack, and the perfect attack under another name."""
        if "ranking" in self.spec.needs:
            skip("judges rankings of candidates; toy problems offer samples")
        cases = self.lab.cases(self.setting, self.setting.goals[0])
        known = truths(cases, self.setting.dataset, self.modality)
        noise = [self.setting.noise(SAMPLES, self.runtime().rng("noise", case.id)) for case in cases]
        truth = [known[case.id].sample if case.id in known else self._private(case.label or 0) for case in cases]
        made = {
            name: [
                Reconstruction(case=case, samples=samples, scores=torch.zeros(len(samples)))
                for case, samples in zip(cases, all_samples, strict=True)
            ]
            for name, all_samples in ((TRUTH, truth), (NOISE, noise), (TWIN, truth))
        }
        return [Subject(name=name, reconstructions=items) for name, items in made.items()]

    def _private(self, label: int) -> Any:
        split = self.setting.dataset.split("private")
        labels = split.labels if split.labels is not None else torch.zeros(len(split))
        return split.take((labels == label).nonzero().flatten()[:SAMPLES])

    def reference(self, device: torch.device | None = None) -> Reference:
        """Return what the evaluator may know."""
        for need, what in OF_THE_USER.items():
            if need in self.spec.needs and not self.options:
                skip(f"needs {what} of the user's; name it by options")
        runtime, needs = self.runtime(device=device), self.spec.needs
        cases = [item.case for item in self.subjects[0].reconstructions]
        return Reference(
            modality=self.modality, dataset=self.setting.dataset, target=self.lab.bundle(self.setting),
            evaluator_model=self.lab.judge(self.setting, runtime) if NEEDS_JUDGE in needs else None,
            evaluator_models=self.lab.panel(self.setting, runtime) if NEEDS_PANEL in needs else (),
            truth=truths(cases, self.setting.dataset, self.modality),
        )  # fmt: skip

    def evaluate(self, subjects: Sequence[Subject], device: torch.device | None = None) -> list[Measurement]:
        """Run a fresh evaluator."""
        given = self.reference(device)
        found: list[Measurement] = self.kind(self.config).evaluate(subjects, given, self.runtime(device=device))
        return found

    @cached_property
    def measured(self) -> list[Measurement]:
        """The figures of all subjects."""
        return self.evaluate(self.subjects)

    def values(self, subject: str, measured: Sequence[Measurement] | None = None) -> dict[str, Measurement]:
        """Return one subject's figures by name."""
        found = self.measured if measured is None else measured
        return {item.name: item for item in found if item.subject == subject}


def is_of_nothing(item: Measurement) -> bool:
    """Tell whether a figure says of noise that there is nothing to measure: no number, and a note that says why.

    Such as the share of something among the samples that a judge accepts, where it accepts none.
    """
    return item.subject == NOISE and math.isnan(item.value) and item.interval is None and bool(item.notes)


def figures_are_well_formed(bench: EvaluatorBench) -> None:
    """Reports, comparisons and re-evaluation read these fields."""
    require(bool(bench.measured), "gave no measurements")
    for item in bench.measured:
        where = f"{item.name} of {item.subject}"
        identity = item.evaluator.split("@")[0]
        require(
            identity == bench.spec.name,
            f"{where}: evaluator {item.evaluator!r} is not '{bench.spec.name}@...'",
        )
        require(item.direction in ("up", "down", "none"), f"{where}: direction {item.direction!r}")
        require(bool(item.name and item.unit), f"{where}: no name or no unit")
        counted = 0 < item.clusters <= item.n or (is_of_nothing(item) and item.clusters == item.n == 0)
        require(counted, f"{where}: {item.clusters} clusters of {item.n} samples")
        json.dumps(measurement_to_dict(item), allow_nan=False)


def values_are_finite(bench: EvaluatorBench) -> None:
    """On sound samples there is nothing that could not be measured; of noise a figure may say why it has no value."""
    unsaid = [item for item in bench.measured if not is_of_nothing(item)]
    broken = [f"{item.name} of {item.subject}" for item in unsaid if not math.isfinite(item.value)]
    require(not broken, f"not finite: {', '.join(broken)}")


def values_are_within_bounds(bench: EvaluatorBench) -> None:
    """A share above one is a bug in the figure, not leakage."""
    for item in bench.measured:
        low, high = BOUNDED.get(item.unit, (-math.inf, math.inf))
        if is_of_nothing(item):
            continue
        for value in (item.value, *item.per_case.values()):
            require(low <= value <= high, f"{item.name} of {item.subject} is {value} {item.unit}")


def counts_are_true(bench: EvaluatorBench) -> None:
    """More units than there are make an interval too narrow."""
    for subject in bench.subjects:
        n, cases = sum(len(item.samples) for item in subject.reconstructions), len(subject.reconstructions)
        known = {item.case.id for item in subject.reconstructions}
        for item in bench.values(subject.name).values():
            where = f"{item.name} of {subject.name}"
            require(item.n <= n, f"{where}: n={item.n}, there are {n} samples")
            require(item.clusters <= cases, f"{where}: {item.clusters} clusters, there are {cases} cases")
            require(item.per_case.keys() <= known, f"{where}: values for unknown cases")


def intervals_contain_their_value(bench: EvaluatorBench) -> None:
    """An interval beside its value is one of something else."""
    for item in bench.measured:
        if item.interval is not None:
            low, high = item.interval.low - 1e-9, item.interval.high + 1e-9
            require(
                low <= item.value <= high,
                f"{item.name} of {item.subject}: {item.value} not in {item.interval}",
            )


def every_subject_is_measured_alike(bench: EvaluatorBench) -> None:
    """A figure means something beside its controls only, and only when all are made in the same way."""
    figures = {subject.name: bench.values(subject.name) for subject in bench.subjects}
    names = {name: sorted(found) for name, found in figures.items()}
    require(len({tuple(found) for found in names.values()}) == 1, f"subjects get different figures: {names}")
    for name, item in figures[TRUTH].items():
        twin = figures[TWIN][name]
        require(item.value == twin.value, f"{name}: the same samples get {item.value} and {twin.value}")


def more_leakage_scores_higher(bench: EvaluatorBench) -> None:
    """The private samples themselves leak at least as much as noise."""
    noise = bench.values(NOISE)
    for name, item in bench.values(TRUTH).items():
        if is_of_nothing(noise[name]):
            continue
        sign = {"up": 1, "down": -1}.get(item.direction, 0)
        facts = f"{name} ({item.direction}): private samples {item.value:.4g}, noise {noise[name].value:.4g}"
        require(sign * item.value >= sign * noise[name].value, facts)


def something_tells_truth_from_noise(bench: EvaluatorBench) -> None:
    """An evaluator that cannot tell the private samples from noise measures nothing."""
    noise = bench.values(NOISE)
    differ = [name for name, item in bench.values(TRUTH).items() if item.value != noise[name].value]
    require(bool(differ), "every figure is the same for private samples and noise")


def order_does_not_matter(bench: EvaluatorBench) -> None:
    """Cases finish in any order."""
    turned = [replace(item, reconstructions=item.reconstructions[::-1]) for item in bench.subjects]
    measured = bench.evaluate(turned)
    for item in bench.subjects:
        again = bench.values(item.name, measured)
        for name, one in bench.values(item.name).items():
            close = name in again and _close(one.value, again[name].value)
            require(close, f"{name} of {item.name} changes with the order of the cases")


def _close(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=1e-5, abs_tol=1e-7) or (math.isnan(one) and math.isnan(two))


def same_answer_twice(bench: EvaluatorBench) -> None:
    """A figure that changes when it is made again cannot be compared."""
    with scrambled(5):
        again = bench.evaluate(bench.subjects)
    both = [(one, two) for one, two in zip(bench.measured, again, strict=True) if str(one) != str(two)]
    different = [f"{one.name} of {one.subject}" for one, _ in both]
    require(not different, f"another value or interval the second time: {', '.join(different)}")


def inputs_are_left_unchanged(bench: EvaluatorBench) -> None:
    """Other evaluators judge the same samples afterwards."""
    subjects, dataset = copy.deepcopy(bench.subjects), bench.setting.dataset
    private = dataset.split("private")
    before = bench.modality.pack(private.take(range(len(private))))
    bench.evaluate(subjects)
    for given, kept in zip(subjects, bench.subjects, strict=True):
        for one, two in zip(given.reconstructions, kept.reconstructions, strict=True):
            equal = same(bench.modality.pack(one.samples), bench.modality.pack(two.samples))
            require(equal, f"changed the samples of {given.name}, {one.case.id}")
    after = bench.modality.pack(private.take(range(len(private))))
    require(same(before, after), "changed the private data")


def global_generators_are_untouched(bench: EvaluatorBench) -> None:
    """Drawing from a global generator changes what everything after it draws."""
    bench.reference()  # trains what is not trained yet
    with scrambled(1):
        before = global_streams()
        bench.evaluate(bench.subjects)
        changed = differences(before, global_streams())
    require(not changed, f"moved the global generator of {', '.join(changed)}")


def devices_are_not_mixed(bench: EvaluatorBench) -> None:
    """A tensor left on the CPU never shows there and always breaks the first run on a GPU."""
    _ = bench.subjects, bench.reference()
    with pretend_accelerator() as device:
        bench.evaluate(bench.subjects, device)


EVALUATOR_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    *CONFIG_CHECKS,
    figures_are_well_formed,
    values_are_finite,
    values_are_within_bounds,
    counts_are_true,
    intervals_contain_their_value,
    every_subject_is_measured_alike,
    more_leakage_scores_higher,
    something_tells_truth_from_noise,
    order_does_not_matter,
    same_answer_twice,
    inputs_are_left_unchanged,
    global_generators_are_untouched,
    devices_are_not_mixed,
)
