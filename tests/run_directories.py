"""Run directories made by hand, with a modality of small tensors: what reports and comparisons read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micore.contracts import Case, Interval, Measurement, Reconstruction
from micore.errors import DataError
from micore.runs import Run
from micore.runs.store import RUN_SCHEMA

EVALUATOR = "accuracy@1234"


class NumberModality:
    """Samples are rows of numbers; a preview is their text."""

    def pack(self, samples: Tensor) -> dict[str, Tensor]:
        return {"rows": samples}

    def unpack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["rows"]

    def show(self, samples: Tensor, limit: int) -> str:
        return f'<code class="numbers">{samples[:limit].tolist()}</code>'


class NumberSplit:
    """Three samples of each class: a hundred times the label."""

    def __init__(self, n_classes: int) -> None:
        self.labels = torch.arange(n_classes).repeat_interleave(3)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Tensor:
        return self.labels[indices].unsqueeze(1) * 100.0


class NumberData:
    """Only a private split."""

    name = "numbers"
    fingerprint = "data-hash"

    def __init__(self, n_classes: int) -> None:
        self._split = NumberSplit(n_classes)

    def split(self, name: str) -> NumberSplit:
        if name != "private":
            raise DataError(f"no {name}")
        return self._split


def measurement(
    subject: str = "attack",
    value: float = 0.6,
    bounds: tuple[float, float] | None = (0.5, 0.7),
    *,
    name: str = "accuracy@1",
    direction: str = "up",
    unit: str = "share",
    evaluator: str = EVALUATOR,
    per_case: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    clusters: int = 12,
) -> Measurement:
    interval = Interval(low=bounds[0], high=bounds[1]) if bounds else None
    return Measurement(
        name=name, subject=subject, value=value, interval=interval, n=clusters * 2, clusters=clusters,
        unit=unit, direction=direction, evaluator=evaluator, per_case=per_case or {}, notes=tuple(notes),
    )  # fmt: skip


def figures(direction: str = "up", *, per_case: Mapping[str, float] | None = None) -> list[Measurement]:
    """Return an attack that beats both floors, with a ceiling."""
    sign = 1 if direction == "up" else -1
    name = "accuracy@1" if direction == "up" else "distance"
    unit = "share" if direction == "up" else "L2"

    def one(subject: str, value: float, **others: Any) -> Measurement:
        ends = sorted((sign * value - 0.05, sign * value + 0.05))
        return measurement(
            subject, sign * value, (ends[0], ends[1]), name=name, direction=direction, unit=unit, **others
        )  # fmt: skip

    return [
        one("attack", 0.6, per_case=per_case, notes=("judge knows 20 classes",)),
        one("prior-samples", 0.1), one("wrong-label", 0.05), one("holdout", 0.9),
    ]  # fmt: skip


JUDGE = {
    "evaluator-model": {
        "model": "judge-net", "source": "judge.safetensors", "fingerprint": "judge-hash",
        "classes": ["a", "b"],
        "metrics": {"holdout_accuracy": 0.97, "holdout_samples": 50}, "seed": 9,
        "independence": {"weights": True, "architecture": True, "seed": True, "augmentation": True},
        "independent": True,
    }
}  # fmt: skip


def manifest(n_classes: int = 12, n_cases: int | None = None, **changes: Any) -> dict[str, Any]:
    """Return the manifest of a finished run."""
    classes = [f"name-{label}" for label in range(n_classes)]
    cases = [
        {"id": f"class-{label}", "label": label, "status": "done", "error": None, "seconds": 1.5}
        for label in range(n_classes if n_cases is None else n_cases)
    ]
    spent = {"queries": 100, "gradients": 40}
    document: dict[str, Any] = {
        "status": "finished",
        "created": "2026-01-01T10:00:00+00:00",
        "finished": "2026-01-01T10:02:30+00:00",
        "request": {
            "attack": {"name": "toy-attack", "config": {"steps": 70, "loss": "poincare"}},
            "model": "/models/my target.safetensors", "preset": "smoke",
            "data": {"uri": "numbers", "options": {"public": "5-9", "size": 64}}, "choice": "0-11",
            "access": None, "budget": {"queries": 5000, "seconds": None}, "seed": 3, "device": "cpu",
            "precision": "fp32", "compiled": False, "batch": 16, "tile": None,
            "evaluators": [{"name": "accuracy", "config": {"batch_size": 8}}], "evaluator_model": None,
        },
        "attack": {
            "name": "toy-attack", "summary": "Climbs a hill", "paper": "Doe et al., arXiv:2001.00001",
            "goal": "class", "modality": "numbers", "control": False, "preset": "smoke",
            "config": {"steps": 70, "loss": "poincare"}, "distribution": "mi-attack-toy", "version": "1.2",
        },
        "target": {
            "uri": "/models/my target.safetensors", "fingerprint": "target-hash",
            "card": {
                "schema": "micore.bundle/1", "role": "classifier", "modality": "numbers",
                "model": {"name": "small-net", "config": {"width": 8}},
                "input": {"shape": [1, 8, 8], "mean": [], "std": [], "options": {}}, "classes": classes,
                "data": {"name": "numbers", "uri": "numbers", "options": {}, "fingerprint": "data-hash"},
                "defenses": [], "training": {"epochs": 2, "augment": "light", "seconds": 12.5},
                "metrics": {"train_accuracy": 1.0, "holdout_accuracy": 0.95, "holdout_samples": 200},
                "seed": 1, "versions": {"torch": "2"},
            },
        },
        "data": {
            "uri": "numbers", "options": {"size": 64}, "name": "numbers", "fingerprint": "data-hash",
            "classes": classes, "splits": {"private": 36, "holdout": 24, "public": 500},
            "same_as_target": True,
        },
        "access": {"granted": "white-box", "used": "scores"},
        "seed": 3,
        "hardware": {"device": "cpu", "device_name": "CPU", "cores": 2},
        "versions": {"micore": "0.1.0", "torch": "2"},
        "cases": cases,
        "notes": [],
        "preparation": {
            "key": "prep-key", "cached": False, "seconds": 30.0, "spending": {"queries": 10, "gradients": 0},
        },
        "ledger": {
            "preparation": {"queries": 10, "gradients": 0}, "shared": {"queries": 15, "gradients": 0},
            "cases": spent, "total": {"queries": 115, "gradients": 40},
        },
        "overlap": {
            "hash": "exact", "private": {"n": 36},
            "public": {"n": 500, "equal": 0, "near": 0, "examples": []},
            "holdout": {"n": 24, "equal": 0, "near": 0, "examples": []},
        },
    }  # fmt: skip
    document.update(changes)
    return document


def make_run(
    directory: Path,
    document: Mapping[str, Any] | None = None,
    measurements: Sequence[Measurement] = (),
    *,
    judges: Mapping[str, Any] | None = None,
    control: str | None = "prior-samples",
    modality: Any = None,
    samples: Callable[[float], Any] = lambda value: torch.full((2, 1), value),
) -> Run:
    """Write a run directory with two samples for every case that has a reconstruction; control samples are of -1."""
    content = dict(document or manifest())
    run = Run.create(directory, {"schema": RUN_SCHEMA, **content})
    modality = NumberModality() if modality is None else modality
    kept = []
    for case in content["cases"]:
        if case["status"] == "pending":
            continue
        recovered = case["status"] in ("done", "partial")
        row = {**case, "goal": "class", "spending": {}, "shared_spending": {"queries": 0, "gradients": 0}}
        item = _reconstruction(case, samples(float(case["label"]))) if recovered else None
        run.write_case(row, item, modality)
        kept += [_reconstruction(case, samples(-1.0))] if recovered else []
    run.collect([case["id"] for case in content["cases"]])
    if control and kept:
        run.write_controls(control, kept, modality)
    if measurements:
        run.write_measurements(measurements, JUDGE if judges is None else judges)
    return Run.open(directory)


def _reconstruction(case: Mapping[str, Any], samples: Any) -> Reconstruction:
    return Reconstruction(
        case=Case(id=case["id"], goal="class", label=case["label"]),
        samples=samples,
        scores=torch.zeros(2),
    )
