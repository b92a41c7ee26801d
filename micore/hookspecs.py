"""The whole contract between the core and its plugins.

A plugin is a module named by an entry point of the group ``micore``; it implements any of these
functions with ``@hookimpl``. The first eight return descriptions (`micore.specs`) and are called
without arguments; the last three observe a run and may not change its results. The page of the hooks
in the documentation is made of what stands here and of the descriptions' fields.
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
    """Describe sample types.

    The target is a class without constructor arguments that has the methods of `micore.contracts.Modality`.
    """


@hookspec
def mi_datasets() -> Iterable[specs.DatasetSpec]:  # type: ignore[empty-body]
    """Describe data sets.

    The target is called as ``open(location, **options)`` and returns a `micore.contracts.Dataset`. ``location`` is what
    stands behind the colon in ``--data name:location``, or None; options come from ``-D``.
    """


@hookspec
def mi_models() -> Iterable[specs.ModelSpec]:  # type: ignore[empty-body]
    """Describe architectures.

    The target is called as ``build(n_classes, input_spec, **arguments)`` and returns an untrained `torch.nn.Module`
    that takes normalised input.
    """


@hookspec
def mi_sources() -> Iterable[specs.SourceSpec]:  # type: ignore[empty-body]
    """Describe places that targets are loaded from.

    The target is called as ``load(request)`` with a `micore.external.SourceRequest` (the URI, the options of
    ``--model-option``, the data set, the runtime). It returns a bundle, or a `micore.external.External` for what is
    none: a function that answers with scores or labels, or a network in memory. A path to a bundle needs no source.
    """


@hookspec
def mi_attacks() -> Iterable[specs.AttackSpec]:  # type: ignore[empty-body]
    """Describe attacks.

    The target is a class with the methods of `micore.contracts.Attack`. docs/tutorial/write-an-attack.md shows one.
    """


@hookspec
def mi_defenses() -> Iterable[specs.DefenseSpec]:  # type: ignore[empty-body]
    """Describe defenses.

    The target is a class derived from `micore.contracts.Defense`.
    """


@hookspec
def mi_evaluators() -> Iterable[specs.EvaluatorSpec]:  # type: ignore[empty-body]
    """Describe evaluators.

    The target is a class with the methods of `micore.contracts.Evaluator`.
    """


@hookspec
def mi_commands() -> Iterable[specs.CommandSpec]:  # type: ignore[empty-body]
    """Describe extra ``mi`` commands.

    The target is a click command, imported when it is called. A name of a built-in command is not replaced.
    """


@hookspec
def mi_run_started(run: Run) -> None:
    """Observe the start of a run, or of another sitting of it: resumed runs start again.

    Called on every rank, before anything is prepared. The manifest is there, see docs/reference/run-directory.md.
    """


@hookspec
def mi_case_done(run: Run, case: Case, reconstruction: Reconstruction) -> None:
    """Observe one reconstruction, after it was written.

    Called on the rank that made it. Not called for failed cases.
    """


@hookspec
def mi_run_finished(run: Run) -> None:
    """Observe the end of a run, after the report was written.

    Called on the first rank. A run that is killed, interrupted or failed has none; one whose budget is spent has.
    """


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
