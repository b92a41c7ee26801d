"""Entry point of the package; imports TensorBoard only in runs that are to be tracked."""

from __future__ import annotations

from micore.hookspecs import hookimpl


@hookimpl
def mi_run_started(run: object) -> None:
    """Write the parameters, if `MI_TENSORBOARD_DIR` says where."""
    from mi_tracker_tensorboard import events

    events.started(run)


@hookimpl
def mi_case_done(run: object, case: object, reconstruction: object) -> None:
    """Write the curves of a case's search."""
    from mi_tracker_tensorboard import events

    events.case_done(run, case, reconstruction)


@hookimpl
def mi_run_finished(run: object) -> None:
    """Write the figures, the cost and the report."""
    from mi_tracker_tensorboard import events

    events.finished(run)
