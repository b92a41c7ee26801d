"""Whether a comparison of runs is fair: what a reader must doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micore.report.findings import Finding
    from micore.runs.compare import Key, RunFacts

    Rows = Mapping[Key, Sequence[Finding | None]]

ENOUGH = 6
"""Classes of which 2 of 2 ** n choices of signs are at most 1 in 20."""

MUCH = 1.1
"""Runs whose queries differ by more than this factor are no fair comparison of what attacks can do."""


def fair_warnings(facts: Sequence[RunFacts], rows: Rows) -> Iterator[str]:
    """Say what makes runs, or their figures, less than comparable."""
    if not rows:
        yield "No measurement is in two or more runs: there is nothing to compare."
    for run in facts:
        if run.status != "finished":
            yield f"{run.id} did not finish (status {run.status})."
        if run.failed:
            yield f"{run.failed} cases of {run.id} failed and are in no figure."
        yield from (f"{run.id}: {text}" for text in run.overlap)
    first = facts[0]
    for run in facts[1:]:
        yield from (f"{run.id} and {first.id}: {text}." for text in _mismatches(run, first))
    yield from _judge_warnings(facts, rows)


def few_classes(classes: Sequence[int]) -> Iterator[str]:
    """Say where differences rest on so few classes that no test could show any. classes: of each difference."""
    least = min((count for count in classes if count), default=ENOUGH)
    if least < ENOUGH:
        yield (
            f"Differences over {least} classes cannot be shown: with fewer than {ENOUGH}, all of them have one sign by "
            "chance more often than once in 20 times."
        )


def _mismatches(run: RunFacts, first: RunFacts) -> Iterator[str]:
    if run.data != first.data:
        yield "other data (fingerprints differ), so the figures are not of the same classes and samples"
    if run.cases != first.cases:
        yield "other cases were attacked; differences use only the classes that both have"
    if run.access != first.access:
        yield f"other access was granted ({run.access}, {first.access})"
    if run.attack != first.attack and run.target != first.target:
        yield "both attack and target differ, so a difference cannot be put down to either"
    if run.attack == first.attack and (run.preset, run.config) != (first.preset, first.config):
        yield f"attack {run.attack} ran with other settings ({_changed(run, first)})"
    if run.seed != first.seed:
        yield f"other seeds ({run.seed}, {first.seed}); a difference includes that of the seeds"


def _changed(run: RunFacts, first: RunFacts) -> str:
    mine, other = run.config, first.config
    names = [name for name in {**other, **mine} if mine.get(name) != other.get(name)]
    preset = [f"preset {run.preset} and {first.preset}"] if run.preset != first.preset else []
    return ", ".join([*preset, *names])


def _judge_warnings(facts: Sequence[RunFacts], rows: Rows) -> Iterator[str]:
    for name in dict.fromkeys(name for run in facts for name in run.judges):
        if len({run.judges[name] for run in facts if name in run.judges}) > 1:
            yield f"The runs were judged by different models ({name}): their figures are not on one scale."
    different = [key[0] for key, row in rows.items() if len({item.evaluator for item in row if item}) > 1]
    for evaluator in dict.fromkeys(different):
        yield f"Evaluator {evaluator} had another identity in some runs: its figures are not on one scale."


def budget_warnings(facts: Sequence[RunFacts], budget: int | None) -> Iterator[str]:
    """Say where runs had other budgets, or stand short of the one that they are compared at."""
    if budget is None:
        known = {run.id: run.queries for run in facts if run.queries is not None}
        if known and max(known.values()) > MUCH * min(known.values()):
            spent = ", ".join(f"{name} {queries:,}" for name, queries in known.items())
            yield f"The runs spent different numbers of queries ({spent}); --at-budget equal compares them at the same."
        return
    for run in facts:
        if run.compared_queries is None:
            yield f"{run.id} has no stand within {budget:,} queries: none of its figures is compared."
        elif run.compared_queries * MUCH < budget:
            yield (
                f"{run.id} is compared as it stood after {run.compared_queries:,} queries, the last of its stands "
                f"within {budget:,}: it may have had more by then."
            )
