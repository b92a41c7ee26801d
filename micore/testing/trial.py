"""An attack on the planted problem of its modality, for the tests of its package."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from micore.attacks import build_attack
from micore.contracts import Attack, Case, Prepared, Reconstruction
from micore.errors import BudgetExceeded
from micore.registry import Registry
from micore.runs.preparation import public_split
from micore.runs.session import attack_spec
from micore.runtime import Runtime
from micore.target import Target
from micore.testing.lab import Lab
from micore.threat import Access, Budget, Ledger


class Trial:
    """An installed attack by its name, with the trained toy target of its modality and goal.

    ``options`` stand over the preset ``smoke``; the preparation is made once, at full access, and shared by all runs.
    """

    def __init__(self, name: str, *, tile: int = 8, seed: int = 0, **options: Any) -> None:
        self.registry = Registry.discover()
        self.entry = self.registry.find("attack", name)
        self.spec = attack_spec(self.entry)
        self.options = options
        self.runtime = Runtime(device=torch.device("cpu"), tile=tile, seed=seed)
        self.lab = Lab(self.registry)
        self.setting = self.lab.setting(self.spec.modality, (self.spec.goal,), self.spec.roles)
        self.dataset, self.modality = self.setting.dataset, self.lab.modality(self.spec.modality)

    @cached_property
    def cases(self) -> list[Case]:
        """All cases of the toy problem, with the evidence that the attack prepares for."""
        return self.lab.cases(self.setting, self.spec.goal, getattr(self.attack().config, "evidence", None))  # type: ignore[attr-defined]

    def attack(self, **options: Any) -> Attack:
        """Build the attack, with further options over those of the trial."""
        return build_attack(self.registry, self.entry, "smoke", {**self.options, **options})

    def target(self, budget: int | None = None, access: Access | None = None) -> Target:
        """Return the toy target behind the attack's access, with a budget of queries."""
        return self.lab.target(
            self.setting, access or self.spec.access, ledger=Ledger(budget=Budget(queries=budget)), runtime=self.runtime
        )

    def prepare(self, attack: Attack, target: Target) -> Prepared | None:
        """Prepare an attack with the toy's public data, if it says that it needs them."""
        public = public_split(self.dataset) if "public" in self.spec.needs else None
        return attack.prepare(target, public, self.runtime)

    @cached_property
    def preparation(self) -> tuple[Target, Prepared | None]:
        """The target that the preparation spent on, and what was prepared."""
        target = self.target()
        return target, self.prepare(self.attack(), target)

    @property
    def prepared(self) -> Prepared | None:
        """What was prepared."""
        return self.preparation[1]

    def run(self, attack: Attack | None = None, *, budget: int | None = None) -> tuple[Target, list[Reconstruction]]:
        """Attack all cases; return the target, whose ledger tells the cost, and what was found within the budget."""
        target, found = self.target(budget), list[Reconstruction]()
        try:
            for item in (attack or self.attack()).run(target, self.cases, self.prepared, self.runtime):
                found.append(item)
        except BudgetExceeded:
            if budget is None:
                raise
        return target, found

    def recovered(self, found: list[Reconstruction]) -> float:
        """Return the mean of the toy's independent judge: about 0 without an attack, at most 1."""
        return float(torch.stack([self.setting.judge(item.case, item.samples).mean() for item in found]).mean())
