"""Preparing an attack once, and keeping the result under a key of everything that it depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from micore import __version__
from micore.artifacts import load_state, save_state
from micore.contracts import Attack, Dataset, Prepared, Split
from micore.errors import DataError
from micore.files import digest
from micore.home import cache
from micore.runs.memory import PeakMemory, peak_memory
from micore.runtime import Checkpoints, Runtime
from micore.target import AnswerForm, Target
from micore.threat import Access, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A prepared attack and what is known of its making."""

    prepared: Prepared | None
    key: str
    cached: bool
    seconds: float
    spending: Mapping[str, int]
    by_access: Mapping[str, int] = field(default_factory=dict)
    peak_memory: PeakMemory | None = None


class SpendingCheckpoints(Checkpoints):
    """Checkpoints that remember what the adversary had spent when they were written, and how long it had taken."""

    def __init__(self, path: Path, ledger: Ledger, interval_s: float = 30.0) -> None:
        super().__init__(path, interval_s)
        self._ledger = ledger
        self._first_load = True
        self._began = time.monotonic()
        self._earlier_s = 0.0

    @property
    def seconds(self) -> float:
        """The time of this sitting and of those whose state was taken over."""
        return self._earlier_s + time.monotonic() - self._began

    def load(self) -> dict[str, Any] | None:
        """Return the saved state and take over its spending, once however often the attack asks."""
        saved = super().load()
        first, self._first_load = self._first_load, False
        if saved is None:
            return None
        if first:
            self._ledger.restore(saved["ledger"])
            self._earlier_s = float(saved.get("seconds", 0.0))
        state: dict[str, Any] = saved["state"]
        return state

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Save the state with the spending, if it is time."""
        super().offer(lambda: {"state": state(), "ledger": self._ledger.to_dict(), "seconds": self.seconds})


def preparation_key(
    attack: Attack,
    identity: Mapping[str, Any],
    fingerprint: str,
    dataset: Dataset | None,
    target: Target,
    runtime: Runtime,
    form: AnswerForm | None = None,
) -> str:
    """Hash what a preparation depends on: attack and its fields, target, public data, seed, arithmetic."""
    config = attack.config.model_dump(mode="json")  # type: ignore[attr-defined]
    fields = {name: config[name] for name in sorted(attack.PREPARE_FIELDS)}
    arithmetic = [
        runtime.seed,
        runtime.precision,
        runtime.compiled,
        runtime.device.type,
        torch.__version__,
        __version__,
    ]
    data = dataset.fingerprint if dataset is not None else None
    answers = [form.to_dict()] if form is not None and not form.is_whole else []
    return digest(dict(identity), fields, fingerprint, target.access.label, data, arithmetic, *answers)


def prepare(attack: Attack, target: Target, public: Split | None, runtime: Runtime, key: str) -> Preparation:
    """Return the prepared attack, from the cache or by doing the work; either way its cost is charged.

    Raises: BudgetExceeded; whatever the attack raises.
    """
    folder = cache() / "prepared" / key
    done = folder / "prepared.safetensors"
    ledger = target.ledger
    if done.exists():
        state, document = load_state(done)
        ledger.charge(queries=document["spending"]["queries"], gradients=document["spending"]["gradients"])
        ledger.note_by_access(document.get("by_access", {}))
        if document.get("used_access"):
            ledger.note_access(Access.parse(document["used_access"]))
        return _preparation(state, document, key, cached=True)
    checkpoints = SpendingCheckpoints(folder / "checkpoint.safetensors", ledger, runtime.checkpoints.interval_s)
    prepared = attack.prepare(target, public, runtime.with_checkpoints(checkpoints))
    spent = ledger.to_dict()
    document = {
        "seconds": round(checkpoints.seconds + runtime.shelf.reused_seconds, 2), "spending": spent["total"],
        "used_access": spent["used_access"], "by_access": spent["by_access"],
        "peak_memory_bytes": peak_memory(runtime.device),
    }  # fmt: skip
    state = {"prepared": dict(prepared.state)} if prepared is not None else {}
    save_state(done, state, document)
    checkpoints.clear()
    return _preparation(state, document, key, cached=False)


def _preparation(state: Mapping[str, Any], document: Mapping[str, Any], key: str, *, cached: bool) -> Preparation:
    prepared = Prepared(state=state["prepared"]) if "prepared" in state else None
    return Preparation(
        prepared=prepared, key=key, cached=cached, seconds=document["seconds"], spending=document["spending"],
        by_access=document.get("by_access", {}), peak_memory=document.get("peak_memory_bytes"),
    )  # fmt: skip


def public_split(dataset: Dataset) -> Split | None:
    """Return the adversary's data, if the data set offers any."""
    try:
        return dataset.split("public")
    except DataError:
        return None
