"""PPDG-MI around PLG-MI: what it takes, what it spends, and what tuning does."""

from __future__ import annotations

import pytest
import torch

from mi_attack_ppdg_mi.attack import PseudoPrivateDataGuided
from micore.attacks import preparer
from micore.configs import preset_config
from micore.contracts import WrapsAttack
from micore.errors import BudgetExceeded, ConfigError, DataError, UnknownNameError
from micore.testing import Trial


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("ppdg-mi")


def test_one_round_is_the_base_attack(toy: Trial) -> None:
    once = toy.attack(rounds=1)
    _, found = toy.run(once)
    _, base = toy.run(once.wrapped())
    assert all(torch.equal(mine.samples, other.samples) for mine, other in zip(found, base, strict=True))


def test_it_spends_the_base_attack_once_per_round(toy: Trial) -> None:
    attack = toy.attack(rounds=3)
    target, found = toy.run(attack)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert all(item.complete for item in found)


def test_tuning_brings_fresh_latents_nearer_to_the_first_rounds_best(toy: Trial) -> None:
    """Around the pseudo-private latents the tuned generator makes more of the planted pattern than the old one."""
    attack = toy.attack(tuning_steps=60, pseudo_private=2, learning_rate=3e-3)
    _, first = toy.run(toy.attack(rounds=1))
    generator = attack.wrapped().generator(toy.prepared, toy.runtime)
    item = max(first, key=lambda item: float(toy.setting.judge(item.case, item.samples[:1])))
    tuned = attack._tuned(generator, item, 1, toy.runtime)
    assert item.latents is not None
    latents = item.latents[:1] + 0.3 * item.latents.std() * toy.runtime.rng("near").normal((64, item.latents.shape[1]))
    labels = torch.full((64,), item.case.label)
    wanted = item.samples[:1]
    distances = [(network(latents, labels) - wanted).square().mean() for network in (generator, tuned)]
    assert distances[1] < 0.8 * distances[0]


def test_a_budget_that_ends_in_the_second_round_leaves_the_first(toy: Trial) -> None:
    attack = toy.attack()
    spent = attack.forecast(len(toy.cases), 0).per_case.queries // 2 * len(toy.cases)
    target, found = toy.target(spent + 1), []
    with pytest.raises(BudgetExceeded):
        found.extend(attack.run(target, toy.cases, toy.prepared, toy.runtime))
    _, first = toy.run(toy.attack(rounds=1))
    assert [item.case.id for item in found] == [case.id for case in toy.cases]
    assert not any(item.complete for item in found)
    assert all(torch.equal(mine.samples, other.samples) for mine, other in zip(found, first, strict=True))


def test_a_base_that_does_not_fit_is_refused(toy: Trial) -> None:
    with pytest.raises(ConfigError, match="its prior is not one generator"):
        toy.attack(base="prior-samples")
    with pytest.raises(ConfigError, match="cannot wrap 'ppdg-mi': itself"):
        toy.attack(base="ppdg-mi")
    with pytest.raises(UnknownNameError, match="pmli"):
        toy.attack(base="pmli")
    with pytest.raises(ConfigError, match="has no option 'stepz'"):
        toy.attack(base_options={"stepz": 3})


def test_without_its_base_or_preparation_it_says_so(toy: Trial) -> None:
    alone = PseudoPrivateDataGuided(preset_config(PseudoPrivateDataGuided, "smoke", {}, "ppdg-mi"))
    assert isinstance(alone, WrapsAttack)
    with pytest.raises(DataError, match="base attack"):
        alone.wrapped()
    with pytest.raises(DataError, match="not prepared"):
        list(toy.attack().run(toy.target(), toy.cases, None, toy.runtime))


def test_the_preparation_is_the_base_attacks_own(toy: Trial) -> None:
    attack = toy.attack()
    entry, base = preparer(toy.registry, toy.registry.find("attack", "ppdg-mi"), attack)
    assert entry.spec.name == "plmi"
    assert base is attack.wrapped()
