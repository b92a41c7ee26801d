"""The samples of a report, as HTML fragments that the modality makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from micore.contracts import HasTruth, ShowsBlurred, ShowsDifferences
from micore.report.model import class_name

if TYPE_CHECKING:
    from micore.contracts import Case, Dataset, Modality, Reconstruction, Samples
    from micore.runs.store import Run

EVIDENCE = "evidence"
MAX_CASES = 24
PER_CASE = 3

NO_RECONSTRUCTION = "There is nothing to show: no case has a reconstruction."
BLURRED = (
    "Samples are shown blurred: that there are any, not of whom. This page holds nothing finer; the run directory "
    "does. Whoever has the likely originals can still compare them with what is left."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """One case: its samples as HTML, by column (evidence, private, recovered, a control's name)."""

    case: str
    class_name: str | None
    fragments: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """What is shown; ``reason`` says why some or all of it is not."""

    columns: Sequence[str]
    exhibits: Sequence[Exhibit]
    total: int
    reason: str | None = None


def pictures(
    run: Run,
    modality: Modality | None,
    private_data: Dataset | None,
    *,
    redact: bool,
    evidence: bool = True,
    blurred: bool = False,
) -> Gallery:
    """Show the first samples of the first cases, in the run's order and not by how good they are.

    private_data: given only when a person asked for private samples; evidence: show what the adversary held of each
    case, which is often private as well; blurred: neither of both, and of the rest what a modality shows of it blurred.
    """
    if redact:
        return _nothing("Samples are left out of this report; the run directory still holds them.")
    if modality is None:
        return _nothing("The samples cannot be shown: the plugin of their modality is not installed.")
    if blurred:
        return _blurred(run, modality)
    recovered = run.reconstructions(modality)
    if not recovered:
        return _nothing(NO_RECONSTRUCTION)
    stored = {name: items for name, items in run.controls(modality).items() if evidence or name != EVIDENCE}
    controls = {name: {item.case.id: item for item in items} for name, items in stored.items()}
    exhibits = [_exhibit(run, item, controls, modality, private_data) for item in recovered[:MAX_CASES]]
    columns = list(dict.fromkeys(name for exhibit in exhibits for name in exhibit.fragments))
    reason = _reason(private_data, columns)
    return Gallery(columns=columns, exhibits=exhibits, total=len(recovered), reason=reason)


def _blurred(run: Run, modality: Modality) -> Gallery:
    """Show what was recovered, and what the controls gave, as coarsely as the modality does."""
    if not isinstance(modality, ShowsBlurred):
        return _nothing("The samples are left out: this modality cannot show them blurred.")
    recovered = run.reconstructions(modality)
    if not recovered:
        return _nothing(NO_RECONSTRUCTION)
    controls = {name: items for name, items in run.controls(modality).items() if name != EVIDENCE}
    columns = {"recovered": recovered, **controls}
    by_case = {name: {item.case.id: item.samples for item in items} for name, items in columns.items()}
    exhibits = [
        Exhibit(
            case=item.case.id,
            class_name=class_name(run, item.case.label),
            fragments={
                name: modality.show_blurred(samples[item.case.id], PER_CASE)
                for name, samples in by_case.items()
                if item.case.id in samples
            },
        )
        for item in recovered[:MAX_CASES]
    ]
    return Gallery(columns=list(columns), exhibits=exhibits, total=len(recovered), reason=BLURRED)


def _nothing(reason: str) -> Gallery:
    return Gallery(columns=(), exhibits=(), total=0, reason=reason)


def _reason(private_data: Dataset | None, columns: Sequence[str]) -> str | None:
    if private_data is not None:
        return None if "private" in columns else "No private sample belongs to these cases."
    text = "Private samples are not shown; mi report --show-private puts them beside these."
    if EVIDENCE in columns:
        text += " What the adversary held of each is shown: with the samples it is private, too."
    return text


def _exhibit(
    run: Run,
    item: Reconstruction,
    controls: Mapping[str, Mapping[str, Reconstruction]],
    modality: Modality,
    private_data: Dataset | None,
) -> Exhibit:
    stored = {
        name: modality.show(items[item.case.id].samples, PER_CASE)
        for name, items in controls.items()
        if item.case.id in items
    }
    fragments = {EVIDENCE: stored[EVIDENCE]} if EVIDENCE in stored else {}
    truth = None
    if private_data is not None:
        truth = _truth(item.case, modality, private_data)
        private = _private(item.case, truth, modality, private_data)
        fragments |= {"private": private} if private else {}
    if truth is not None and isinstance(modality, ShowsDifferences):
        fragments["recovered"] = modality.show_against(truth, item.samples, PER_CASE)
    else:
        fragments["recovered"] = modality.show(item.samples, PER_CASE)
    fragments |= {name: fragment for name, fragment in stored.items() if name != EVIDENCE}
    return Exhibit(case=item.case.id, class_name=class_name(run, item.case.label), fragments=fragments)


def _truth(case: Case, modality: Modality, dataset: Dataset) -> Samples | None:
    """Return the very sample that a case is about, where it is not about a class."""
    if case.goal == "class" or not isinstance(modality, HasTruth):
        return None
    known = modality.truths([case], dataset)
    return known[case.id].sample if case.id in known else None


def _private(case: Case, truth: Samples | None, modality: Modality, dataset: Dataset) -> str | None:
    """Show private samples of the case's class, or the very sample that it is about."""
    if case.goal != "class":
        return None if truth is None else modality.show(truth, 1)
    split = dataset.split("private")
    if split.labels is None or case.label is None:
        return None
    members = (split.labels == case.label).nonzero().flatten()[:PER_CASE]
    return modality.show(split.take(members), PER_CASE) if len(members) else None
