"""What a run directory says, without times, paths and names of its own: to compare runs bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from micore.artifacts import read_tensors
from micore.files import read_json
from micore.runs.store import CASES_SCHEMA

OF_THIS_RUN = {
    "id", "created", "finished", "seconds", "preparation_cached",
    "preparation_s", "attack_s", "evaluation_s", "wall_s", "peak_memory_bytes",
}  # fmt: skip


def stored(path: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Return the bytes of every tensor of a file of reconstructions, and its rows without times."""
    tensors, document = read_tensors(path, CASES_SCHEMA)
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in document["cases"]]
    return {name: bits(tensor) for name, tensor in tensors.items()}, rows


def bits(tensor: Tensor) -> bytes:
    """Return type, shape and bytes of a tensor."""
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.contiguous().numpy().tobytes()


def recovered(run: Path) -> Any:
    """Return what the attack and its control gave."""
    return stored(run / "reconstructions.safetensors"), stored(run / "control-prior-samples.safetensors")


def of_case(run: Path, case_id: str) -> Any:
    """Return what is stored of one case in the joined file."""
    tensors, rows = stored(run / "reconstructions.safetensors")
    own = {name: content for name, content in tensors.items() if name.startswith(f"{case_id}/")}
    return own, [row for row in rows if row["id"] == case_id]


def figures(run: Path) -> Any:
    """Return the measurements as they are stored."""
    return read_json(run / "measurements.json")["measurements"]


def manifest(run: Path) -> Any:
    """Return the manifest."""
    return read_json(run / "run.json")


def ledger(run: Path) -> Any:
    """Return what was spent: in all, and on each case."""
    document = manifest(run)
    return document["ledger"], {case["id"]: case["spending"] for case in document["cases"]}


def outcome(run: Path) -> Any:
    """Return everything that two runs of one request must have in common, bit for bit."""
    return recovered(run), figures(run), ledger(run)


def timeless(document: Any) -> Any:
    """Return a report without what is different in every run."""
    if isinstance(document, dict):
        return {key: timeless(value) for key, value in document.items() if key not in OF_THIS_RUN}
    if isinstance(document, list):
        return [timeless(value) for value in document]
    return document


def events(run: Path) -> list[dict[str, Any]]:
    """Return the lines of the event log."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
