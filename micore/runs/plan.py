"""What a run would need and cost, told before it begins; nothing of the run is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from micore.contracts import Forecast, HasForecast
from micore.external import External
from micore.home import cache
from micore.registry import Registry
from micore.runs.probe import Probe, probe
from micore.runs.request import AttackRequest
from micore.runs.session import Session, open_session
from micore.runs.tiles import Tile
from micore.threat import Access, Budget, Spending

PROBES = 3
PROBE_S = 5.0
"""Seconds that each phase of a run is tried for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked request and its forecast.

    forecast: None when the attack cannot count its cost. prepared: the preparation is cached already. probe: the
    phases of the run, each tried for a few seconds; None without one. target_seconds: the target's share alone, from
    a few timed batches; None for a target elsewhere, which would answer them for money.
    """

    session: Session
    prepared: bool
    forecast: Forecast | None
    total: Spending | None
    target_seconds: float | None
    probe: Probe | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        session = self.session
        return {
            "schema": "micore.plan/1",
            "attack": session.spec.name,
            "config": session.attack.config.model_dump(mode="json"),  # type: ignore[attr-defined]
            "access": session.target.access.label,
            "cases": [case.id for case in session.cases],
            "public_samples": len(session.public) if session.public is not None else 0,
            "evaluators": [spec.name for spec, _ in session.evaluators],
            "device": str(session.runtime.device),
            "prepared": self.prepared,
            "preparation": self.forecast.preparation.to_dict() if self.forecast else None,
            "per_case": self.forecast.per_case.to_dict() if self.forecast else None,
            "total": self.total.to_dict() if self.total else None,
            "within_budget": self.within_budget,
            "target_seconds": _rounded(self.target_seconds),
            "phases": [phase.to_dict() for phase in self.probe.phases] if self.probe else None,
            "seconds": _rounded(self.probe.seconds) if self.probe else None,
            "memory_bytes": dict(self.probe.memory) if self.probe else None,
        }

    @property
    def within_budget(self) -> bool | None:
        """Whether the queries fit the budget; None when that is not known."""
        limit = self.session.request.budget.queries
        if limit is None or self.total is None:
            return None
        return self.total.queries <= limit


def plan(registry: Registry, request: AttackRequest, probe_s: float | None = None) -> Plan:
    """Check a request as a run would, count its cost, and try its phases.

    probe_s: seconds for each phase; 0: no probe; None: 5, and 0 for a target elsewhere, whose queries cost.

    Raises: as `micore.runs.attack`, for a request that cannot work.
    """
    session = open_session(registry, request)
    prepared = (cache() / "prepared" / session.preparation_key / "prepared.safetensors").exists()
    forecast = None
    if isinstance(session.attack, HasForecast):
        n_public = len(session.public) if session.public is not None else 0
        forecast = session.attack.forecast(session.target.n_classes, n_public)
    total = _total(forecast, len(session.cases)) if forecast else None
    elsewhere = isinstance(session.loaded, External) and session.loaded.module is None
    seconds = _target_seconds(session, total) if total and not elsewhere else None
    limit = (0.0 if elsewhere else PROBE_S) if probe_s is None else probe_s
    return Plan(
        session=session,
        prepared=prepared,
        forecast=forecast,
        total=total,
        target_seconds=seconds,
        probe=probe(session, limit) if limit else None,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _total(forecast: Forecast, n_cases: int) -> Spending:
    return Spending(
        forecast.preparation.queries + n_cases * forecast.per_case.queries,
        forecast.preparation.gradients + n_cases * forecast.per_case.gradients,
    )


def _target_seconds(session: Session, total: Spending) -> float | None:
    """Time forward and backward passes of one tile; the probe is not charged to anybody."""
    samples = session.dataset.split("private").take(torch.arange(1))
    if not isinstance(samples, torch.Tensor) or not samples.is_floating_point():
        return None

    def probe(rows: int) -> float:
        batch = samples.repeat(rows, *[1] * (samples.ndim - 1)).to(session.runtime.device)
        forward = _timed(session, batch, gradients=False)
        both = _timed(session, batch, gradients=True) if session.target.access >= Access.WHITE_BOX else forward
        plain = total.queries - total.gradients
        return (plain * forward + total.gradients * both) / rows

    return Tile(session.runtime.tile).fit(probe)


def _timed(session: Session, batch: torch.Tensor, *, gradients: bool) -> float:
    spent, session.target.ledger.budget = session.target.ledger.budget, Budget()
    try:
        times = [_pass(session, batch, gradients) for _ in range(PROBES)]
    finally:
        session.target.ledger.budget = spent
    return min(times)


def _pass(session: Session, batch: torch.Tensor, gradients: bool) -> float:
    started = time.perf_counter()
    if gradients:
        probe = batch.clone().requires_grad_(True)
        session.target.module(probe).sum().backward()
    else:
        session.target.labels(batch)
    _wait(session)
    return time.perf_counter() - started


def _wait(session: Session) -> None:
    if session.runtime.device.type != "cpu":
        torch.accelerator.synchronize(session.runtime.device)
