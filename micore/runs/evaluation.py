"""Judging a run with independent evaluators."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from micore.artifacts import Bundle, PluginUse
from micore.configs import make_config
from micore.contracts import Case, Dataset, Evaluator, Measurement, Modality, Reference
from micore.errors import RunError, UsageError
from micore.external import HasFace
from micore.measurements import measurement_to_dict
from micore.reference import PANEL, PANEL_DIGITS
from micore.registry import Entry, Registry
from micore.runs.judges import describe_judge, evaluator_models, judge_name, open_judge
from micore.runs.request import AttackRequest
from micore.runs.store import Run
from micore.runs.subjects import subjects, truths, with_cases
from micore.runtime import Runtime
from micore.specs import ANY, EvaluatorSpec

NEEDS_JUDGE = "evaluator-model"
"""The need of evaluators that run once for each evaluator model."""

NEEDS_PANEL = "evaluator-models"
"""The need of evaluators that run once, with all evaluator models together."""


def chosen_evaluators(
    registry: Registry, modality: str, goal: str, uses: Sequence[PluginUse] | None
) -> list[tuple[EvaluatorSpec, Evaluator]]:
    """Return the evaluators of a run: the named ones, or all that run by default.

    Raises: UsageError when a named one does not fit the modality or goal; ConfigError.
    """
    if uses is None:
        fitting = [entry for entry in registry.entries("evaluator") if _fits(_spec(entry), modality, goal)]
        uses = [PluginUse(name=entry.spec.name) for entry in fitting if _spec(entry).default]
    chosen = []
    for use in uses:
        entry = registry.find("evaluator", use.name)
        if not _fits(_spec(entry), modality, goal):
            raise UsageError(f"evaluator {use.name!r} does not judge goal {goal!r} of modality {modality!r}")
        kind = registry.load(entry)
        chosen.append((_spec(entry), kind(make_config(kind.Config, use.config, f"evaluator {use.name!r}"))))
    return chosen


def check_panel(evaluators: Sequence[tuple[EvaluatorSpec, Evaluator]], n_judges: int) -> None:
    """Check that there are judges enough for evaluators that judge with several together.

    Raises: UsageError.
    """
    for spec, _ in evaluators:
        if NEEDS_PANEL in spec.needs and n_judges < PANEL:
            raise UsageError(
                f"evaluator {spec.name!r} judges with at least {PANEL} evaluator models together; "
                f"this run has {n_judges}",
                hint=f"--judges {PANEL}; where there are fewer architectures than judges, the further ones differ in "
                "their seed",
            )


def _spec(entry: Entry) -> EvaluatorSpec:
    if not isinstance(entry.spec, EvaluatorSpec):
        raise TypeError(f"{entry.spec.name} is no evaluator")
    return entry.spec


def _fits(spec: EvaluatorSpec, modality: str, goal: str) -> bool:
    return spec.modality in (ANY, modality) and goal in spec.goals


def evaluate_run(
    registry: Registry,
    runtime: Runtime,
    run: Run,
    *,
    request: AttackRequest,
    dataset: Dataset,
    modality: Modality,
    target: HasFace,
    evaluators: Sequence[tuple[EvaluatorSpec, Evaluator]],
    cases: Sequence[Case] = (),
) -> list[Measurement]:
    """Judge the attack and its controls, and write ``measurements.json``.

    cases: with their evidence, which a run does not store.

    Figures of evaluators that are not run now are kept, and when one fails those of the ones before it. A run without
    reconstructions has none.
    """
    reconstructions = with_cases(run.reconstructions(modality), cases)
    if not reconstructions:
        return []
    controls = {name: with_cases(items, cases) for name, items in run.controls(modality).items()}
    truth = truths([item.case for item in reconstructions], dataset, modality)
    judged = subjects(reconstructions, controls, dataset, truth, runtime)
    judges = _judges(registry, runtime, request, dataset, target, evaluators)
    opened = [open_judge(registry, runtime, judge, target, modality) for judge in judges]
    plain = Reference(modality=modality, dataset=dataset, target=target, truth=truth)
    together = replace(plain, evaluator_models=tuple(opened))
    fresh: list[Measurement] = []
    done: set[str] = set()
    try:
        for spec, evaluator in evaluators:
            run.event("evaluator", name=spec.name)
            for judge in opened if NEEDS_JUDGE in spec.needs else [None]:
                given = together if NEEDS_PANEL in spec.needs else plain
                found = evaluator.evaluate(judged, replace(given, evaluator_model=judge), runtime)
                fresh += found if judge is None else _apart(found, fresh, judge.identity)
            done.add(spec.name)
    finally:  # a judge that fails, such as one at an address, may not cost the figures of those before it
        _write(run, [item for item in fresh if _evaluator_of(item) in done], done, judges, target)
    return fresh


def _write(
    run: Run, fresh: Sequence[Measurement], replaced: Container[str], judges: Sequence[Bundle], target: HasFace
) -> None:
    """Store fresh figures in place of earlier ones of the same evaluators."""
    kept = [item for item in run.measurements() if _evaluator_of(item) not in replaced]
    described = [describe_judge(judge, target) for judge in judges]
    run.write_measurements([*kept, *fresh], _known_judges(run.judges(), described, kept))


def _evaluator_of(item: Measurement) -> str:
    return item.evaluator.split("@")[0]


def _judges(
    registry: Registry, runtime: Runtime, request: AttackRequest, dataset: Dataset, target: HasFace,
    evaluators: Sequence[tuple[EvaluatorSpec, Evaluator]],
) -> list[Bundle]:  # fmt: skip
    """Return the evaluator models, none when no evaluator asks one."""
    if not any({NEEDS_JUDGE, NEEDS_PANEL} & set(spec.needs) for spec, _ in evaluators):
        return []
    if request.data is None:
        raise RunError("the run names no data set to train an evaluator model on")
    return evaluator_models(
        registry, runtime, request.data, dataset, target, request.evaluator_model, request.judges
    )  # fmt: skip


def _apart(found: Sequence[Measurement], earlier: Sequence[Measurement], identity: str) -> Iterator[Measurement]:
    """Keep one judge's figures apart from those of the judges before it.

    An evaluator's figures that do not depend on the judge come once; those that do and do not say whose they are
    are given the judge's identity.
    """
    known = {(item.evaluator, item.name, item.subject): item for item in earlier}
    for item in found:
        same = known.get((item.evaluator, item.name, item.subject))
        if same is None:
            yield item
        elif measurement_to_dict(item) != measurement_to_dict(same):
            yield replace(item, evaluator=f"{_evaluator_of(item)}@{identity}")


def _known_judges(
    earlier: Mapping[str, Any], described: Sequence[Mapping[str, Any]], kept: Sequence[Measurement]
) -> dict[str, Any]:
    """Name the evaluator models; earlier ones stay as long as a figure is theirs."""
    if not described:
        return dict(earlier)
    new = {judge["fingerprint"] for judge in described}
    marks = {mark for item in kept for mark in item.evaluator.partition("@")[2].split("-") if len(mark) >= PANEL_DIGITS}
    still = [
        judge for judge in earlier.values()
        if judge["fingerprint"] not in new and judge["fingerprint"].startswith(tuple(marks))
    ]  # fmt: skip
    return {judge_name(index): judge for index, judge in enumerate([*described, *still])}
