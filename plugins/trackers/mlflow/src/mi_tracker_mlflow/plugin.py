"""Entry point of the package; imports MLflow only in runs that are to be tracked."""

from __future__ import annotations

from micore.hookspecs import hookimpl


@hookimpl
def mi_run_started(run: object) -> None:
    """Open a run in MLflow, or the same one again, if `MI_MLFLOW` asks for it."""
    from mi_tracker_mlflow import recording

    recording.started(run)


@hookimpl
def mi_case_done(run: object, case: object, reconstruction: object) -> None:
    """Tell how sure the attack is of a case and what it has spent."""
    from mi_tracker_mlflow import recording

    recording.case_done(run, case, reconstruction)


@hookimpl
def mi_run_finished(run: object) -> None:
    """Send the figures and the report."""
    from mi_tracker_mlflow import recording

    recording.finished(run)
