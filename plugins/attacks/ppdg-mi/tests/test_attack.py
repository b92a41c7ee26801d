"""PPDG-MI around PLG-MI: what it takes, what it spends, and what tuning does."""

from __future__ import annotations

from functools import cached_property

import pytest
import torch

from mi_attack_ppdg_mi.attack import PseudoPrivateDataGuided
from micore.attacks import build_attack
from micore.configs import preset_config
from micore.contracts import Attack, Prepared, Reconstruction, WrapsAttack
from micore.errors import BudgetExceeded, ConfigError, DataError, UnknownNameError
from micore.registry import Registry
from micore.runtime import Runtime
from micore.target import Target
from micore.testing.lab import Lab
from micore.threat import Access, Budget, Ledger

CPU = Runtime(device=torch.device("cpu"), tile=8)


class Toy:
    """The toy problem of images, and the attack with its base built by the registry."""

    def __init__(self) -> None:
        self.registry = Registry.discover()
        self.lab = Lab(self.registry)
        self.setting = self.lab.setting("image", ("class",))
        self.dataset, self.modality = self.setting.dataset, self.lab.modality("image")
        self.cases = self.lab.cases(self.setting, "class")

    def attack(self, **options: object) -> PseudoPrivateDataGuided:
        attack = build_attack(self.registry, self.registry.find("attack", "ppdg-mi"), "smoke", options)
        assert isinstance(attack, PseudoPrivateDataGuided)
        return attack

    def target(self, budget: Budget | None = None) -> Target:
        return Target(
            self.lab.module(self.setting), access=Access.WHITE_BOX, adapter=self.modality.adapter(self.dataset.input),
            input_spec=self.dataset.input, classes=self.dataset.classes, ledger=Ledger(budget=budget or Budget()),
            runtime=CPU,
        )  # fmt: skip

    @cached_property
    def prepared(self) -> Prepared:
        prepared = self.attack().prepare(self.target(), self.dataset.split("public"), CPU)
        assert prepared is not None
        return prepared

    def run(self, attack: Attack, budget: Budget | None = None) -> tuple[Target, list[Reconstruction]]:
        target = self.target(budget)
        return target, list(attack.run(target, self.cases, self.prepared, CPU))

    def recovered(self, found: list[Reconstruction]) -> float:
        return float(torch.stack([self.setting.judge(item.case, item.samples).mean() for item in found]).mean())


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


def test_one_round_is_the_base_attack(toy: Toy) -> None:
    once = toy.attack(rounds=1)
    _, found = toy.run(once)
    _, base = toy.run(once.wrapped())
    assert all(torch.equal(mine.samples, other.samples) for mine, other in zip(found, base, strict=True))


def test_it_spends_the_base_attack_once_per_round(toy: Toy) -> None:
    attack = toy.attack(rounds=3)
    target, found = toy.run(attack)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert all(item.complete for item in found)


def test_tuning_brings_fresh_latents_nearer_to_the_first_rounds_best(toy: Toy) -> None:
    """Around the pseudo-private latents the tuned generator makes more of the planted pattern than the old one."""
    attack = toy.attack(tuning_steps=60, pseudo_private=2, learning_rate=3e-3)
    _, first = toy.run(toy.attack(rounds=1))
    generator = attack.wrapped().generator(toy.prepared, CPU)
    item = max(first, key=lambda item: float(toy.setting.judge(item.case, item.samples[:1])))
    tuned = attack._tuned(generator, item, 1, CPU)
    assert item.latents is not None
    latents = item.latents[:1] + 0.3 * item.latents.std() * CPU.rng("near").normal((64, item.latents.shape[1]))
    labels = torch.full((64,), item.case.label)
    wanted = item.samples[:1]
    distances = [(network(latents, labels) - wanted).square().mean() for network in (generator, tuned)]
    assert distances[1] < 0.8 * distances[0]


def test_a_budget_that_ends_in_the_second_round_leaves_the_first(toy: Toy) -> None:
    attack = toy.attack()
    spent = attack.forecast(len(toy.cases), 0).per_case.queries // 2 * len(toy.cases)
    target, found = toy.target(Budget(queries=spent + 1)), []
    with pytest.raises(BudgetExceeded):
        found.extend(attack.run(target, toy.cases, toy.prepared, CPU))
    _, first = toy.run(toy.attack(rounds=1))
    assert [item.case.id for item in found] == [case.id for case in toy.cases]
    assert not any(item.complete for item in found)
    assert all(torch.equal(mine.samples, other.samples) for mine, other in zip(found, first, strict=True))


def test_a_base_that_does_not_fit_is_refused(toy: Toy) -> None:
    with pytest.raises(ConfigError, match="its prior is not one generator"):
        toy.attack(base="prior-samples")
    with pytest.raises(ConfigError, match="cannot wrap 'ppdg-mi': itself"):
        toy.attack(base="ppdg-mi")
    with pytest.raises(UnknownNameError, match="pmli"):
        toy.attack(base="pmli")
    with pytest.raises(ConfigError, match="has no option 'stepz'"):
        toy.attack(base_options={"stepz": 3})


def test_without_its_base_or_preparation_it_says_so(toy: Toy) -> None:
    alone = PseudoPrivateDataGuided(preset_config(PseudoPrivateDataGuided, "smoke", {}, "ppdg-mi"))
    assert isinstance(alone, WrapsAttack)
    with pytest.raises(DataError, match="base attack"):
        alone.wrapped()
    with pytest.raises(DataError, match="not prepared"):
        list(toy.attack().run(toy.target(), toy.cases, None, CPU))


def test_the_preparation_is_the_base_attacks_own(toy: Toy) -> None:
    from micore.attacks import preparer

    attack = toy.attack()
    entry, base = preparer(toy.registry, toy.registry.find("attack", "ppdg-mi"), attack)
    assert entry.spec.name == "plmi"
    assert base is attack.wrapped()
