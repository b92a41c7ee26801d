"""What a tracker tells of a run: who it is, its parameters and its figures, as flat names and values.

For plugins that observe runs (``mi_run_started`` and the others). Nothing here holds a sample, private or
recovered, or the path of a file that the run was asked to read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from micore.files import digest
from micore.report.findings import Finding, findings

if TYPE_CHECKING:
    from micore.runs import Run

__all__ = ["case_index", "figures", "identity", "leads", "parameters", "recovered"]

Number = int | float
RECOVERED = ("done", "partial")
STATUSES = (*RECOVERED, "failed", "budget")
"""Of the cases of a run that has ended."""


def leads() -> bool:
    """Tell whether this process is the first of its run: the start of a run is observed by all."""
    import torch.distributed as ranks

    return not (ranks.is_available() and ranks.is_initialized()) or ranks.get_rank() == 0


def identity(run: Run) -> str:
    """Return 16 hex digits that are the same in every process and sitting of a run, and another run's are not."""
    manifest = run.manifest
    began = [manifest[key] for key in ("created", "attack", "data", "seed")] + [manifest["target"]["fingerprint"]]
    return digest(run.id, *began)[:16]


def case_index(run: Run, case_id: str) -> int:
    """Return which case of the run this is, counted from 0.

    Raises: ValueError for a case that the run has not.
    """
    return [row["id"] for row in run.manifest["cases"]].index(case_id)


def recovered(run: Run) -> int:
    """Return of how many cases the run has a reconstruction: the step of its figures, for resuming adds more."""
    return sum(row["status"] in RECOVERED for row in run.manifest["cases"])


def parameters(run: Run) -> dict[str, str]:
    """Return what decides the results, as ``attack.config.steps`` and the like: the same in every sitting of a run."""
    manifest = run.manifest
    attack, target, data = manifest["attack"], manifest["target"], manifest["data"] or {}
    card = target["card"]
    chosen = {
        "attack": {key: attack[key] for key in ("name", "version", "goal", "modality", "preset", "config")},
        "target": {
            "fingerprint": target["fingerprint"], "model": card["model"]["name"], "role": card["role"],
            "defenses": "+".join(use["name"] for use in card["defenses"]) or "none",
        },
        "data": {key: data.get(key) for key in ("name", "fingerprint")},
        "access": manifest["access"]["granted"],
        "answers": manifest.get("answers"),
        "evidence": manifest.get("evidence"),
        "seed": manifest["seed"],
        "cases": len(manifest["cases"]),
        "device": manifest["hardware"]["device"],
        "precision": manifest["hardware"]["precision"],
        "micore": manifest["versions"].get("micore"),
    }  # fmt: skip
    return {name: str(value) for name, value in _flat("", chosen) if value is not None}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with dotted names."""
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)


def figures(run: Run) -> dict[str, Number]:
    """Return the numbers of a finished run: what was measured, what it cost, how many cases came through.

    A measurement is called ``accuracy/attack/value``, and beside it stand ``/low``, ``/high`` (its interval) and
    ``/n``; floors are ``accuracy/floor/prior-samples/value``, the ceiling ``accuracy/ceiling/holdout/value``. Where
    several judges measure the same, the judge's name stands before it. NaN stays: a figure that could not be had.
    """
    manifest = run.manifest
    found = findings(run)
    names = Counter(finding.name for finding in found)
    numbers: dict[str, Number] = {}
    for finding in found:
        place = finding.name if names[finding.name] == 1 else f"{finding.evaluator}/{finding.name}"
        numbers.update(_measured(place, finding))
    statuses = {**dict.fromkeys(STATUSES, 0), **Counter(row["status"] for row in manifest["cases"])}
    costs = {"ledger": manifest.get("ledger", {}), "timings": manifest.get("timings", {}), "cases": statuses}
    costs["peak_memory_bytes"] = manifest.get("peak_memory_bytes") or {}
    numbers.update((name.replace(".", "/"), value) for name, value in _flat("", costs) if value is not None)
    return numbers


def _measured(place: str, finding: Finding) -> Iterator[tuple[str, Number]]:
    for subject, item in finding.subjects.items():
        role = "floor/" if subject in finding.floors else "ceiling/" if subject == finding.ceiling else ""
        yield f"{place}/{role}{subject}/value", item.value
        yield f"{place}/{role}{subject}/n", item.n
        if item.interval is not None and math.isfinite(item.interval.low + item.interval.high):
            yield f"{place}/{role}{subject}/low", item.interval.low
            yield f"{place}/{role}{subject}/high", item.interval.high
