"""Judging a run with independent evaluators."""

from __future__ import annotations

from collections.abc import Sequence

from micore.artifacts import Bundle, PluginUse
from micore.configs import make_config
from micore.contracts import Dataset, Evaluator, Measurement, Modality, Reference
from micore.errors import RunError, UsageError
from micore.registry import Entry, Registry
from micore.runs.judges import describe_judge, evaluator_model, open_judge
from micore.runs.request import AttackRequest
from micore.runs.store import Run
from micore.runs.subjects import subjects
from micore.runtime import Runtime
from micore.specs import ANY, EvaluatorSpec


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
    target: Bundle,
    evaluators: Sequence[tuple[EvaluatorSpec, Evaluator]],
) -> list[Measurement]:
    """Judge the attack and its controls, and write ``measurements.json``.

    Figures of evaluators that are not run now are kept. A run without reconstructions has none.
    """
    reconstructions = run.reconstructions(modality)
    if not reconstructions:
        return []
    judged = subjects(reconstructions, run.controls(modality), dataset, modality, runtime)
    judge = None
    if any("evaluator-model" in spec.needs for spec, _ in evaluators):
        if request.data is None:
            raise RunError("the run names no data set to train an evaluator model on")
        judge = evaluator_model(registry, runtime, request.data, dataset, target, request.evaluator_model)
    opened = open_judge(registry, runtime, judge, target, modality) if judge else None
    reference = Reference(modality=modality, dataset=dataset, target=target, evaluator_model=opened)
    fresh: list[Measurement] = []
    for spec, evaluator in evaluators:
        run.event("evaluator", name=spec.name)
        fresh += evaluator.evaluate(judged, reference, runtime)
    replaced = {spec.name for spec, _ in evaluators}
    kept = [item for item in run.measurements() if item.evaluator.split("@")[0] not in replaced]
    judges = run.judges() | ({"evaluator-model": describe_judge(judge, target)} if judge else {})
    run.write_measurements([*kept, *fresh], judges)
    return fresh
