"""Judging a run that is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from micore.artifacts import PluginUse
from micore.registry import Registry
from micore.report import write_report
from micore.runs.evaluation import evaluate_run
from micore.runs.request import AttackRequest
from micore.runs.session import check_unchanged, open_session
from micore.runs.store import Run
from micore.runtime import Progress


def judge(
    registry: Registry,
    directory: Path,
    *,
    evaluators: Sequence[PluginUse] | None = None,
    evaluator_model: str | None = None,
    judges: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Run evaluators over a run's reconstructions and controls, and renew its report.

    evaluators: None runs those that run by default; judges: how many evaluator models, None for the run's number.

    Raises: RunError when it is no run, or target or data have changed; as `micore.runs.evaluation.chosen_evaluators`.
    """
    run = Run.open(directory)
    request = AttackRequest.from_dict(run.manifest["request"])
    chosen = tuple(evaluators) if evaluators is not None else None
    request = replace(
        request, evaluators=chosen, device=device, evaluator_model=evaluator_model or request.evaluator_model,
        judges=judges or request.judges,
    )  # fmt: skip
    session = open_session(registry, request, progress)
    check_unchanged(session, run)
    evaluate_run(
        registry, session.runtime, run, request=session.request, dataset=session.dataset, modality=session.modality,
        target=session.loaded, evaluators=session.evaluators, cases=session.cases,
    )  # fmt: skip
    write_report(run, session.modality, session.dataset)
    return run
