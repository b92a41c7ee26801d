"""The run directory: the one place that a run writes to, readable at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from micore.artifacts import read_tensors, write_tensors
from micore.contracts import Case, Measurement, Modality, Reconstruction, Samples, Snapshot
from micore.errors import RunError, StorageError
from micore.files import read_json, safe_name, write_json
from micore.measurements import measurement_from_dict, measurement_to_dict

RUN_SCHEMA = "micore.run/1"
CASES_SCHEMA = "micore.reconstructions/1"
MEASUREMENTS_SCHEMA = "micore.measurements/1"

Row = dict[str, Any]
"""What is known of one case: id, label, status, error, seconds, spending.

status: done, partial (the best so far), failed; budget or pending: stopped before it gave anything.
"""


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Run:
    """A run directory and its manifest.

    While a run goes on, every finished case is a file of its own under ``cases/``; `collect` joins
    them into ``reconstructions.safetensors``. All files are replaced atomically.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def create(cls, directory: Path, manifest: Mapping[str, Any]) -> Run:
        """Start a run directory.

        Raises: RunError when there is a run already; StorageError when it cannot be written.
        """
        if (directory / "run.json").exists():
            raise RunError(f"{directory} holds a run already", hint=f"`mi resume {directory}`, or another -o")
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise RunError(f"{directory} exists and is not an empty directory", hint="choose another -o")
        run = cls(directory, {"schema": RUN_SCHEMA, "status": "created", "created": now(), **manifest})
        run.save()
        return run

    @classmethod
    def open(cls, directory: Path) -> Run:
        """Open a run directory.

        Raises: RunError when it is none, or of another version.
        """
        if not (directory / "run.json").is_file():
            raise RunError(f"{directory} is no run directory (it has no run.json)")
        manifest = read_json(directory / "run.json")
        if not isinstance(manifest, dict) or manifest.get("schema") != RUN_SCHEMA:
            raise RunError(f"{directory}/run.json is not of schema {RUN_SCHEMA}")
        return cls(directory, manifest)

    @property
    def id(self) -> str:
        """The run's name: its directory's."""
        return self.directory.resolve().name

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.directory / "run.json", self.manifest)

    def update(self, **changes: Any) -> None:
        """Change the manifest and write it."""
        self.manifest.update(changes)
        self.save()

    def mend(self) -> None:
        """Bring in order what a killed process left; only while nobody else writes.

        What it had half-written goes, and a case that it wrote but did not note in time is noted.
        """
        for path in self.directory.rglob(".*.part"):
            path.unlink(missing_ok=True)
        noted = {(event["id"], event["status"]) for event in self.events() if event["event"] == "case"}
        for row in self.rows().values():
            if (row["id"], row["status"]) not in noted:
                self.note_case(row)

    def event(self, name: str, /, **values: Any) -> None:
        """Append a line to ``events.jsonl``.

        Raises: StorageError.
        """
        line = json.dumps({"time": round(time.time(), 3), "event": name, **values}, default=str)
        try:
            with (self.directory / "events.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise StorageError(f"cannot write {self.directory}/events.jsonl: {error.strerror}") from error

    def events(self) -> list[dict[str, Any]]:
        """Return what has happened, each with ``time`` and ``event``."""
        path = self.directory / "events.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def note_case(self, row: Row) -> None:
        """Append the event that a case has been written."""
        self.event("case", id=row["id"], status=row["status"], error=row["error"])

    # cases -----------------------------------------------------------------------------------------

    def case_path(self, case_id: str) -> Path:
        """Return where a finished case is kept until the run is collected."""
        return self.directory / "cases" / f"{safe_name(case_id)}.safetensors"

    def write_case(self, row: Row, reconstruction: Reconstruction | None, modality: Modality) -> None:
        """Keep one case, done or failed."""
        tensors = _pack(row["id"], reconstruction, modality) if reconstruction else {}
        history = {name: list(values) for name, values in reconstruction.history.items()} if reconstruction else {}
        spent = [snapshot.queries for snapshot in reconstruction.snapshots] if reconstruction else []
        entry = {**row, "history": history, "snapshots": spent}
        write_tensors(self.case_path(row["id"]), tensors, {"schema": CASES_SCHEMA, "cases": [entry]})

    def amend_case(self, row: Row) -> None:
        """Change what is known of a case and keep its reconstruction."""
        tensors, _ = self._stored()
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{row['id']}/")}
        write_tensors(self.case_path(row["id"]), own, {"schema": CASES_SCHEMA, "cases": [row]})

    def rows(self) -> dict[str, Row]:
        """Return what is known of every finished case, by id."""
        _, document = self._stored()
        return {row["id"]: row for row in document["cases"]}

    def collect(self, order: Iterable[str]) -> None:
        """Join the case files into one, in this order, and remove them."""
        tensors, document = self._stored()
        by_id = {row["id"]: row for row in document["cases"]}
        rows = [by_id[case_id] for case_id in order if case_id in by_id]
        path = self.directory / "reconstructions.safetensors"
        write_tensors(path, tensors, {"schema": CASES_SCHEMA, "cases": rows})
        for case_file in sorted((self.directory / "cases").glob("*.safetensors")):
            case_file.unlink()
        if (self.directory / "cases").is_dir():
            (self.directory / "cases").rmdir()

    def reconstructions(self, modality: Modality) -> list[Reconstruction]:
        """Return the reconstructions of all cases that have any."""
        tensors, document = self._stored()
        return [_unpack(row, tensors, modality) for row in document["cases"] if row["status"] in ("done", "partial")]

    def _stored(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        joined = self.directory / "reconstructions.safetensors"
        paths = [joined] if joined.exists() else []
        paths += sorted((self.directory / "cases").glob("*.safetensors"))
        tensors: dict[str, Tensor] = {}
        rows: dict[str, Row] = {}
        for path in paths:
            some, document = read_tensors(path, CASES_SCHEMA)
            again = tuple(f"{row['id']}/" for row in document["cases"] if row["id"] in rows)
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(again)} | some
            rows |= {row["id"]: row for row in document["cases"]}
        return tensors, {"cases": list(rows.values())}

    # controls --------------------------------------------------------------------------------------

    def write_controls(self, name: str, reconstructions: Iterable[Reconstruction], modality: Modality) -> None:
        """Keep what a negative control gave for the cases."""
        tensors: dict[str, Tensor] = {}
        rows = []
        for reconstruction in reconstructions:
            tensors |= _pack(reconstruction.case.id, reconstruction, modality)
            rows.append({"id": reconstruction.case.id, **_case_dict(reconstruction.case), "history": {}})
        write_tensors(self._control_path(name), tensors, {"schema": CASES_SCHEMA, "cases": rows})

    def controls(self, modality: Modality) -> dict[str, list[Reconstruction]]:
        """Return what the negative controls gave, by name."""
        found = {}
        for path in sorted(self.directory.glob("control-*.safetensors")):
            tensors, document = read_tensors(path, CASES_SCHEMA)
            name = path.stem.removeprefix("control-")
            found[name] = [_unpack(row, tensors, modality) for row in document["cases"]]
        return found

    def _control_path(self, name: str) -> Path:
        return self.directory / f"control-{safe_name(name)}.safetensors"

    # measurements ----------------------------------------------------------------------------------

    def write_measurements(self, measurements: Iterable[Measurement], judges: Mapping[str, Any]) -> None:
        """Keep the figures of the evaluators and who the evaluator models were."""
        rows = [measurement_to_dict(measurement) for measurement in measurements]
        document = {"schema": MEASUREMENTS_SCHEMA, "measurements": rows, "judges": dict(judges)}
        write_json(self.directory / "measurements.json", document)

    def measurements(self) -> list[Measurement]:
        """Return the figures, none before the run was evaluated."""
        return [measurement_from_dict(row) for row in self._measured()["measurements"]]

    def judges(self) -> dict[str, Any]:
        """Return the evaluator models and what was checked of their independence."""
        judges: dict[str, Any] = self._measured()["judges"]
        return judges

    def _measured(self) -> dict[str, Any]:
        path = self.directory / "measurements.json"
        if not path.exists():
            return {"measurements": [], "judges": {}}
        document: dict[str, Any] = read_json(path)
        if document.get("schema") != MEASUREMENTS_SCHEMA:
            raise RunError(f"{path} is not of schema {MEASUREMENTS_SCHEMA}")
        return document


def _case_dict(case: Case) -> dict[str, Any]:
    return {"goal": case.goal, "label": case.label}


def _pack(case_id: str, reconstruction: Reconstruction, modality: Modality) -> dict[str, Tensor]:
    tensors = {f"{case_id}/samples/{name}": part for name, part in modality.pack(reconstruction.samples).items()}
    tensors[f"{case_id}/scores"] = reconstruction.scores
    if reconstruction.latents is not None:
        tensors[f"{case_id}/latents"] = reconstruction.latents
    for index, snapshot in enumerate(reconstruction.snapshots):
        parts = modality.pack(snapshot.samples)
        tensors |= {f"{case_id}/snapshots/{index}/{name}": part for name, part in parts.items()}
    return tensors


def _unpack(row: Row, tensors: Mapping[str, Tensor], modality: Modality) -> Reconstruction:
    case_id = row["id"]

    def samples(kind: str) -> Samples:
        prefix = f"{case_id}/{kind}/"
        parts = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
        return modality.unpack(parts)

    return Reconstruction(
        case=Case(id=case_id, goal=row["goal"], label=row["label"]),
        samples=samples("samples"),
        scores=tensors[f"{case_id}/scores"],
        latents=tensors.get(f"{case_id}/latents"),
        history=row.get("history", {}),
        complete=row.get("status", "done") == "done",
        snapshots=tuple(
            Snapshot(queries=queries, samples=samples(f"snapshots/{index}"))
            for index, queries in enumerate(row.get("snapshots", ()))
        ),
    )
