"""What is sent to MLflow, and when.

``MI_MLFLOW`` asks for it: ``1`` means the server that MLflow itself is set to (``MLFLOW_TRACKING_URI``), anything else
is an address. Without it nothing is imported or sent, also where ``MLFLOW_TRACKING_URI`` is set for other programs.

A run is found again by its tag ``micore.run``, so that a resumed run goes on, every process of it speaks to the same
one, and nothing is written to the run directory.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from micore.kit.tracking import case_index, figures, identity, leads, parameters, recovered

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from micore.contracts import Case, Reconstruction
    from micore.runs import Run

ASKED, SAMPLES = "MI_MLFLOW", "MI_MLFLOW_SAMPLES"
NO = ("", "0", "false", "no")
EXPERIMENT = "micore"
KEY, STATUS = "micore.run", "micore.status"
BATCH = 1000
"""Metrics in one request, the most that MLflow takes."""

PARAMETER = 6000
"""Characters of a parameter, the most that MLflow takes."""

MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""How MLflow behaves here, unless the user has set it. Its own settings would let an attack wait for minutes when the
server is away, tell its makers how it is used, and write addresses to stdout, which carries results only."""

FILES = ("report.md", "report.json", "measurements.json")
"""Without samples; the other report shows what was recovered."""


def started(run: Run) -> None:
    """Open the run with its parameters, or the same one again; the other ranks find it when they need it."""
    recording = _asked_for(run)
    if recording is not None and leads():
        recording.open(run)


def case_done(run: Run, case: Case, reconstruction: Reconstruction) -> None:
    """Tell the attack's own score of a case."""
    recording = _asked_for(run)
    if recording is not None and len(reconstruction.scores):
        recording.measure({"case/score": float(reconstruction.scores[0])}, case_index(run, case.id))


def finished(run: Run) -> None:
    """Send what was measured, and close the run."""
    recording = _asked_for(run)
    if recording is not None:
        recording.close(run, with_samples=os.environ.get(SAMPLES, "") not in NO)


def _asked_for(run: Run) -> Recording | None:
    place = os.environ.get(ASKED, "")
    return None if place in NO else _recording(place, identity(run))


class Recording:
    """One run of MLflow. After a failure it is silent until the end, so that an attack waits for a lost server once."""

    def __init__(self, place: str, key: str) -> None:
        self._place, self._key = place, key
        self._run_id: str | None = None
        self._lost = False

    def open(self, run: Run) -> None:
        """Begin, or go on with, the run of this key."""
        with self._served() as client:
            run_id = self._of(client, run)
            client.update_run(run_id, status="RUNNING")
            client.set_tag(run_id, STATUS, "running")

    def measure(self, numbers: Mapping[str, float], step: int) -> None:
        """Send numbers of one step."""
        if self._lost:
            return
        with self._served() as client:
            _log_metrics(client, self._known(client), numbers, step)

    def close(self, run: Run, *, with_samples: bool) -> None:
        """Send figures and files, and end the run."""
        with self._served() as client:
            run_id = self._of(client, run)  # which is made now if the server was away before
            _log_metrics(client, run_id, figures(run), recovered(run))
            for name in (*FILES, *(("report.html",) if with_samples else ())):
                if (run.directory / name).is_file():  # without a reconstruction there are no measurements
                    client.log_artifact(run_id, str(run.directory / name))
            client.set_tag(run_id, STATUS, run.manifest["status"])
            client.set_terminated(run_id)

    def _of(self, client: MlflowClient, run: Run) -> str:
        """Return the run's id; make the run if MLflow does not know it."""
        experiment = _experiment(client)
        self._run_id = _find(client, experiment, self._key)
        if self._run_id is None:
            name, tags = run.id, {KEY: self._key, "micore.attack": run.manifest["attack"]["name"]}
            self._run_id = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
            _log_parameters(client, self._run_id, parameters(run))
        return self._run_id

    def _known(self, client: MlflowClient) -> str:
        """Return the run's id, which another process may have made."""
        if self._run_id is None:
            self._run_id = _find(client, _experiment(client), self._key)
        if self._run_id is None:
            raise LookupError("MLflow has no such run; it was away when the run began")
        return self._run_id

    @contextmanager
    def _served(self) -> Iterator[MlflowClient]:
        """Give a client; remember a failure and pass it on, to be reported as a warning."""
        try:
            with _mannered():
                from mlflow import MlflowClient

                yield MlflowClient(None if self._place == "1" else self._place)
        except Exception:
            self._lost = True
            raise
        self._lost = False


@cache  # hooks are functions: what they must remember between two calls stands here
def _recording(place: str, key: str) -> Recording:
    return Recording(place, key)


@contextmanager
def _mannered() -> Iterator[None]:
    """Set how MLflow behaves, where the user has not."""
    own = {name: value for name, value in MANNERS.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _experiment(client: MlflowClient) -> str:
    """Return the id of the experiment, made if need be."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another run may have made it just now
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    return str(known.experiment_id)


def _find(client: MlflowClient, experiment: str, key: str) -> str | None:
    found = client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _log_parameters(client: MlflowClient, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    rows = [Param(_allowed(name), value[:PARAMETER]) for name, value in values.items()]
    for start in range(0, len(rows), 100):
        client.log_batch(run_id, params=rows[start : start + 100])


def _log_metrics(client: MlflowClient, run_id: str, numbers: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = [Metric(_allowed(name), float(value), now, step) for name, value in numbers.items()]
    for start in range(0, len(rows), BATCH):
        client.log_batch(run_id, metrics=rows[start : start + BATCH])


def _allowed(name: str) -> str:
    """Return a name of characters that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", name)
