"""Runs of an attack on the toy problem, observed from outside."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from micore.attacks import wrapped
from micore.contracts import Attack, Case, Prepared, Reconstruction, Split, WrapsAttack
from micore.errors import BudgetExceeded
from micore.runs.preparation import public_split
from micore.runtime import Checkpoints, Random, Runtime
from micore.target import Target
from micore.testing.bench import TILE, Bench
from micore.testing.counting import (
    Counts,
    RecordingLedger,
    condition,
    counted,
    differences,
    global_streams,
    scrambled,
)
from micore.testing.report import require, skip
from micore.threat import Access, Budget

OWN = object()
"""Stands for: prepare within the run itself."""


class OfferCounter(Checkpoints):
    """Counts the states that are offered to it, and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.offers = 0

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Count."""
        self.offers += 1


@dataclass(frozen=True, kw_only=True)
class WatchedRuntime(Runtime):
    """A runtime that remembers for what random numbers were asked."""

    draws: list[object] = field(default_factory=list)

    def rng(self, *purpose: object) -> Random:
        """Return a stream, and remember its purpose."""
        self.draws.append(purpose)
        return super().rng(*purpose)

    @contextmanager
    def seeded(self, *purpose: object) -> Iterator[None]:
        """Seed the global generators, and remember the purpose."""
        self.draws.append(purpose)
        with super().seeded(*purpose):
            yield


@dataclass(kw_only=True)
class Outcome:
    """What one run gave and did."""

    ledger: RecordingLedger
    counts: Counts = field(default_factory=Counts)
    prepared: Prepared | None = None
    found: list[Reconstruction] = field(default_factory=list)
    stopped: BudgetExceeded | None = None
    seconds: float = 0.0
    target_changes: list[str] = field(default_factory=list)
    stream_changes: list[str] = field(default_factory=list)
    offers: int = 0
    draws: Sequence[object] = ()

    def by_case(self) -> dict[str, Reconstruction]:
        """Return the reconstructions by case id."""
        return {item.case.id: item for item in self.found}


class AttackBench(Bench):
    """An attack under check."""

    @cached_property
    def cases(self) -> list[Case]:
        """All cases of the toy problem, with the evidence that the attack prepares for."""
        return self.lab.cases(self.setting, self.spec.goal, getattr(self.config, "evidence", None))

    @cached_property
    def public(self) -> Split | None:
        """The adversary's data, for an attack that says it needs them."""
        return public_split(self.setting.dataset) if "public" in self.spec.needs else None

    @cached_property
    def _attempt(self) -> Outcome | Exception:
        try:
            return self.run(self.cases)
        except Exception as error:  # seam: kept for every check that asks, so that a broken attack runs once
            return error

    @property
    def reference(self) -> Outcome:
        """The run that others are compared with: seed 0, all cases."""
        outcome = self._attempt
        if isinstance(outcome, Exception):
            raise outcome
        missing = {case.id for case in self.cases} - outcome.by_case().keys()
        require(not missing, f"no reconstruction for {', '.join(sorted(missing))}")
        return outcome

    def run(
        self,
        cases: Sequence[Case],
        *,
        prepared: Any = OWN,
        seed: int = 0,
        access: Access | None = None,
        budget: Budget | None = None,
        device: torch.device | None = None,
        checkpoints: Checkpoints | None = None,
        tile: int = TILE,
        streams: int = 1,
    ) -> Outcome:
        """Attack a fresh copy of the toy target; ``streams`` seeds the global generators."""
        module = self.lab.module(self.setting)
        runtime = WatchedRuntime(
            device=device or torch.device("cpu"),
            seed=seed,
            tile=tile,
            checkpoints=checkpoints or OfferCounter(),
        )
        outcome = Outcome(ledger=RecordingLedger(budget=budget or Budget()))
        target = self.lab.target(
            self.setting, self.spec.access if access is None else access, ledger=outcome.ledger, runtime=runtime,
            module=module,
        )  # fmt: skip
        with scrambled(streams), counted(module) as outcome.counts:
            before, random_before = condition(module), global_streams()
            self._attack(target, cases, prepared, runtime, outcome)
            outcome.target_changes = differences(before, condition(module))
            outcome.draws = runtime.draws
            outcome.stream_changes = differences(random_before, global_streams())
        return outcome

    def _attack(self, target: Target, cases: Sequence[Case], prepared: Any, runtime: Runtime, outcome: Outcome) -> None:
        """Prepare and run; a spent budget is an outcome, other errors are the attack's."""
        wall, processor = time.perf_counter(), time.process_time()
        attack = self.attack()
        try:
            if prepared is OWN:
                outcome.prepared = attack.prepare(target, self.public, runtime)
                outcome.offers = getattr(runtime.checkpoints, "offers", 0)
            else:
                outcome.prepared = copy.deepcopy(prepared)
            if not cases:  # only the preparation is wanted
                return
            for reconstruction in attack.run(target, list(cases), outcome.prepared, runtime):
                outcome.found.append(reconstruction)
        except BudgetExceeded as error:
            outcome.stopped = error
        # The smaller of both: a busy machine stretches the wall clock, several threads the other.
        outcome.seconds = min(time.perf_counter() - wall, time.process_time() - processor)

    def attack(self) -> Attack:
        """Build the attack, with its base if it wraps one; skips the check when that is not installed."""
        attack: Attack = self.kind(self.config)
        if isinstance(attack, WrapsAttack):
            name = attack.base_use().name
            if name not in [entry.spec.name for entry in self.registry.entries("attack")]:
                skip(f"its base attack {name!r} is not installed")
        return wrapped(self.registry, self.entry, attack)

    def content(self, outcome: Outcome) -> dict[str, Any]:
        """Return everything that was recovered, to compare bit for bit."""
        return {
            item.case.id: {"samples": self.modality.pack(item.samples), "scores": item.scores.detach().cpu(),
                           "latents": None if item.latents is None else item.latents.detach().cpu()}
            for item in outcome.found
        }  # fmt: skip
