"""The whole contract between the core and its plugins.

A plugin is a module named by an entry point of the group ``micore``; it implements any of these
functions with ``@hookimpl``. The first eight return descriptions (`micore.specs`) and are called
without arguments; the last three observe a run and may not change its results.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from micore import specs

if TYPE_CHECKING:
    from micore.contracts import Case, Reconstruction
    from micore.runs import Run

PROJECT = "micore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mi_modalities() -> Iterable[specs.ModalitySpec]:  # type: ignore[empty-body]
    """Describe sample types."""


@hookspec
def mi_datasets() -> Iterable[specs.DatasetSpec]:  # type: ignore[empty-body]
    """Describe data sets."""


@hookspec
def mi_models() -> Iterable[specs.ModelSpec]:  # type: ignore[empty-body]
    """Describe architectures."""


@hookspec
def mi_sources() -> Iterable[specs.SourceSpec]:  # type: ignore[empty-body]
    """Describe places that targets are loaded from."""


@hookspec
def mi_attacks() -> Iterable[specs.AttackSpec]:  # type: ignore[empty-body]
    """Describe attacks."""


@hookspec
def mi_defenses() -> Iterable[specs.DefenseSpec]:  # type: ignore[empty-body]
    """Describe defenses."""


@hookspec
def mi_evaluators() -> Iterable[specs.EvaluatorSpec]:  # type: ignore[empty-body]
    """Describe evaluators."""


@hookspec
def mi_commands() -> Iterable[specs.CommandSpec]:  # type: ignore[empty-body]
    """Describe extra ``mi`` commands."""


@hookspec
def mi_run_started(run: Run) -> None:
    """Observe the start of a run."""


@hookspec
def mi_case_done(run: Run, case: Case, reconstruction: Reconstruction) -> None:
    """Observe one finished case."""


@hookspec
def mi_run_finished(run: Run) -> None:
    """Observe the end of a run."""


SPEC_HOOKS: dict[str, type[specs.Spec]] = {
    "mi_modalities": specs.ModalitySpec,
    "mi_datasets": specs.DatasetSpec,
    "mi_models": specs.ModelSpec,
    "mi_sources": specs.SourceSpec,
    "mi_attacks": specs.AttackSpec,
    "mi_defenses": specs.DefenseSpec,
    "mi_evaluators": specs.EvaluatorSpec,
    "mi_commands": specs.CommandSpec,
}
OBSERVER_HOOKS = ("mi_run_started", "mi_case_done", "mi_run_finished")
