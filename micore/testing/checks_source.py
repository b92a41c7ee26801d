"""Checks of sources: what is not there is refused in so many words, what is there is opened as the core needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch

from micore.artifacts import Bundle
from micore.contracts import Dataset
from micore.data import DataRequest
from micore.errors import MiError
from micore.external import External, SourceRequest
from micore.models import load_modality, load_target, open_target
from micore.target import Target
from micore.testing.bench import Bench
from micore.testing.checks_plugin import PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, scrambled
from micore.testing.offline import offline
from micore.testing.report import Check, CheckSkipped, require, skip
from micore.threat import Access, Ledger

NOWHERE = ("no-such-place-", "//no-such-host.invalid/no-such-place")
OWN = ("location", "data")
N = 4
"""Samples that an opened target is asked about."""


class SourceBench(Bench):
    """A source under check.

    ``options``: ``location``, a place that it can open (what stands behind its scheme), ``data``, the data set that the
    target there is meant for, and what a user gives by ``--model-option``.
    """

    def request(self, place: str, dataset: Dataset | None, **options: Any) -> SourceRequest:
        """Return what the core asks a source for."""
        return SourceRequest(
            uri=f"{self.spec.scheme}:{place}", runtime=self.runtime(), options=options, dataset=dataset
        )  # fmt: skip

    @cached_property
    def dataset(self) -> Dataset | None:
        """The data set of the options, or that of the first toy problem there is; None without any."""
        if "data" in self.options:
            return DataRequest.parse(self.options["data"]).open(self.registry)
        for entry in self.registry.entries("modality"):
            try:
                return self.lab.setting(entry.spec.name).dataset
            except CheckSkipped:
                continue
        return None

    def open(self, **further: Any) -> Bundle | External:
        """Open the place of the options, through the core; skips the check without one."""
        if "location" not in self.options:
            skip("no place to open was given: -p location=PLACE, with -p data=NAME where the source needs that")
        options = {name: value for name, value in self.options.items() if name not in OWN}
        request = self.request(str(self.options["location"]), self.dataset, **{**options, **further})
        return load_target(self.registry, request)


def scheme_is_its_own(bench: SourceBench) -> None:
    """A URI must mean one thing: no two sources have a scheme, and none looks like a drive's letter."""
    scheme = bench.spec.scheme
    require(len(scheme) > 1, f"scheme {scheme!r} is one letter: the core takes such for a path")
    others = [
        f"{entry.spec.name} of {entry.provider.distribution}"
        for entry in bench.registry.entries("source")
        if entry != bench.entry and getattr(entry.spec, "scheme", None) == scheme
    ]
    require(not others, f"scheme {scheme!r} is also that of {', '.join(others)}")


def what_is_not_there_is_refused(bench: SourceBench) -> None:
    """A misspelt place, or a machine without a network, must give a message and not a traceback."""
    for place in NOWHERE:
        for dataset in (bench.dataset, None):
            with offline():
                _refused(partial(bench.kind, bench.request(place, dataset)), repr(place))


def no_place_is_refused(bench: SourceBench) -> None:
    """A scheme with nothing behind it names no target."""
    with offline():
        _refused(partial(bench.kind, bench.request("", bench.dataset)), "an empty place")


def _refused(load: Callable[[], object], what: str) -> None:
    try:
        load()
    except MiError as error:
        require(len(error.message) >= 10, f"the message for {what} is {error.message!r}")
    else:
        require(False, f"{what} was opened")


def unknown_options_are_refused(bench: SourceBench) -> None:
    """A misspelt option that is silently ignored makes a wrong experiment."""
    bench.open()
    with offline():
        _refused(partial(bench.open, no_such_option_=1), "an unknown option")


def what_it_opens_is_a_target(bench: SourceBench) -> str:
    """The core judges a target by its card: what it is, which classes it has, what it takes."""
    with offline() as asked:
        loaded = bench.open()
    require(isinstance(loaded, Bundle | External), f"returned {type(loaded).__name__}, no Bundle or External")
    require(bool(loaded.fingerprint), "the target has no fingerprint")
    known = [entry.spec.name for entry in bench.registry.entries("modality")]
    require(loaded.card.modality in known, f"the card's modality {loaded.card.modality!r} is not installed")
    require(not asked, f"asked for {', '.join(sorted(set(asked)))} to open a place on this machine")
    return f"a {loaded.card.role} of {len(loaded.card.classes)} classes"


def fingerprint_is_stable(bench: SourceBench) -> None:
    """A run is resumed only on the target that it began with."""
    first, second = bench.open().fingerprint, bench.open().fingerprint
    require(first == second, f"one place gave the fingerprints {first[:12]} and {second[:12]}")


def global_generators_are_untouched(bench: SourceBench) -> None:
    """Opening a target draws no random number of the process."""
    with scrambled(1):
        before = global_streams()
        bench.open()
        changed = differences(before, global_streams())
    require(not changed, f"the global generator of {', '.join(changed)} was moved")


def answers_fit_the_card(bench: SourceBench) -> None:
    """A classifier answers each sample with a share of 1 for each class, twice the same."""
    target, samples = _target(bench)
    if target.access.label == "label":
        labels = target.labels(samples)
        require(
            tuple(labels.shape) == (N,) and labels.dtype == torch.int64, f"labels {tuple(labels.shape)} {labels.dtype}"
        )
        return
    scores, again = target.scores(samples), target.scores(samples)
    require(tuple(scores.shape) == (N, target.n_classes), f"scores {tuple(scores.shape)} for {N} samples")
    require(bool(torch.isfinite(scores).all()), "scores are not finite")
    require(torch.allclose(scores, again, atol=1e-5), "two answers to one question differ")


def _target(bench: SourceBench) -> tuple[Target, Any]:
    loaded = bench.open()
    if loaded.card.role != "classifier" or bench.dataset is None:
        skip(f"the target is no classifier of a data set, but a {loaded.card.role}")
    modality = load_modality(bench.registry, loaded.card.modality)
    most = loaded.highest_access if isinstance(loaded, External) else None
    access = min(Access.SCORES, most) if most is not None else Access.SCORES
    target = open_target(
        bench.registry, loaded, access=access, ledger=Ledger(), runtime=bench.runtime(), modality=modality
    )  # fmt: skip
    return target, bench.dataset.split("private").take(range(N))


SOURCE_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    scheme_is_its_own,
    what_is_not_there_is_refused,
    no_place_is_refused,
    what_it_opens_is_a_target,
    unknown_options_are_refused,
    fingerprint_is_stable,
    global_generators_are_untouched,
    answers_fit_the_card,
)
