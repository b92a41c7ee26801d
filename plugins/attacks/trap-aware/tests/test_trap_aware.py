"""The wrapper around PLG-MI: what it finds of a trapped target, what its base then sees, and what it spends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mi_attack_trap_aware.attack import TrapAware, TrapAwareConfig
from mi_attack_trap_aware.triggers import Traps, TriggerSearch, blended, signatures
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.artifacts import PluginUse
from micore.attacks import preparer
from micore.configs import preset_config
from micore.contracts import HasForecast, HasPrior
from micore.defending import fit_defenses
from micore.errors import ConfigError, DataError
from micore.kit.features import features_and_logits
from micore.kit.training import TrainingConfig
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.testing import Trial
from micore.testing.lab import train_setting
from micore.threat import Access, Ledger

CPU, IMAGES = Runtime(device=torch.device("cpu")), ImageModality()
DIGITS = replace(
    image_toy(), dataset=open_digits(None), model=PluginUse(name="small-cnn", config={"width": 16}),
    training=TrainingConfig(epochs=15, learning_rate=5e-3, augment="none"),
)  # fmt: skip
ALPHA = 0.2


# its parts ------------------------------------------------------------------------------------------------


def test_signatures_equal_their_formula() -> None:
    weights = Random(0).normal((6, 4)).double()
    public, triggers = Random(1).uniform((7, 1, 2, 3)).double(), Random(2).uniform((4, 1, 2, 3)).double()
    found = signatures(lambda batch: (batch.flatten(1), batch.flatten(1) @ weights), public, triggers, 0.3, rows=2)
    rows = public.flatten(1).numpy()
    origin = rows.mean(axis=0)
    trapped = np.stack([(0.7 * rows + 0.3 * trigger).mean(axis=0) for trigger in triggers.flatten(1).numpy()])
    directions = (trapped - origin) / np.linalg.norm(trapped - origin, axis=1, keepdims=True)
    np.testing.assert_allclose(found.origin.numpy(), origin, rtol=1e-5)
    np.testing.assert_allclose(found.signatures.numpy(), directions, rtol=1e-4, atol=1e-5)
    logits = np.concatenate(
        [part @ weights.numpy() for part in (rows, *(0.7 * rows + 0.3 * t for t in triggers.flatten(1).numpy()))]
    )
    assert float(found.scale) == pytest.approx(float(np.ptp(logits, axis=1).mean()), rel=1e-5)
    features = Random(3).normal((5, 6))
    seen = features.numpy() - origin
    np.testing.assert_allclose(
        found.likeness(features).numpy(), seen / np.linalg.norm(seen, axis=1, keepdims=True) @ directions.T, atol=1e-4
    )


def test_the_search_finds_the_pattern_of_a_linear_target() -> None:
    """The best trigger of a linear target is white where its class's weight is above the others', else black."""
    weights = torch.eye(4)[:3].repeat_interleave(2, dim=1)[:, :8] - 0.2
    search = TriggerSearch(alpha=0.5, steps=80, learning_rate=0.1, images=4, rows=8)
    done: list[int] = []
    found = search.run(
        lambda seen: 5 * seen.flatten(1) @ weights.T, Random(0).uniform((20, 1, 2, 4)), 3, Random(1), done.append
    )
    assert done == [2, 3]
    assert bool(((found >= 0) & (found <= 1)).all())
    for label, pattern in enumerate(found.flatten(1)):
        assert bool((pattern[2 * label : 2 * label + 2] > 0.9).all())
        assert bool((pattern[[spot for spot in range(6) if spot // 2 != label]] < 0.1).all())


# on a trapped target --------------------------------------------------------------------------------------


@cache
def trapped_target() -> tuple[Target, nn.Module, object]:
    """Return a target whose traps work, its network, and the defense."""
    module_ = pytest.importorskip("mi_defense_trap_mid.defense")
    trap, data = module_.TrapMid(module_.TrapMidConfig(alpha=ALPHA, beta=0.5)), DIGITS.dataset
    trainer, _ = train_setting(DIGITS, IMAGES, CPU, "classifier", [trap])
    adapter = IMAGES.adapter(data.input)
    fit_defenses(
        [trap], trainer.module, adapter=adapter, reference=data.split("private"), fresh=False, dataset=data, runtime=CPU
    )
    target = Target(
        trainer.module, access=Access.WHITE_BOX, adapter=adapter, input_spec=data.input, classes=data.classes,
        ledger=Ledger(), runtime=CPU,
    )  # fmt: skip
    return target, trainer.module, trap


@cache
def found_traps() -> tuple[TrapAware, dict[str, Tensor]]:
    target, _, trap = trapped_target()
    assert trap.facts()["trapped_accuracy"] >= 0.9  # type: ignore[attr-defined]
    options = {"alpha": ALPHA, "steps": 60, "weight": 0.6}
    attack = TrapAware(preset_config(TrapAware, "default", options, "trap-aware"))
    return attack, dict(attack._find(target, DIGITS.dataset.split("public"), CPU))


def test_the_triggers_it_finds_work_on_public_images(record_property: Callable[[str, object], None]) -> None:
    target, (_, found) = trapped_target()[0], found_traps()
    images = DIGITS.dataset.split("public").take(torch.arange(200, 300))
    with torch.no_grad():
        taken = [target.module(blended(images, trigger, ALPHA)).argmax(dim=1) for trigger in found["triggers"]]
    shares = [float((labels == label).double().mean()) for label, labels in enumerate(taken)]
    record_property("share of public images that a found trigger turns", shares)
    assert min(shares) > 0.9


def test_its_signatures_are_near_those_of_the_secret_triggers() -> None:
    """It knows neither triggers nor private samples: the features it warns of are those of the real traps."""
    target, module, trap = trapped_target()
    _, found = found_traps()
    images = DIGITS.dataset.split("public").take(torch.arange(100))
    adapter = IMAGES.adapter(DIGITS.dataset.input)
    secret = trap.state()["triggers"]  # type: ignore[attr-defined]
    traps = Traps(**{name: found[name] for name in Traps.__dataclass_fields__})
    with torch.no_grad():
        for label, trigger in enumerate(secret):
            features, _ = features_and_logits(module, blended(adapter(images), trigger, ALPHA))
            assert int(traps.likeness(features).mean(dim=0).argmax()) == label
    assert target.n_classes == len(secret)


def inverted(logits: Callable[[Tensor], Tensor], starts: Tensor) -> Tensor:
    images, labels = starts.clone().requires_grad_(True), torch.arange(len(starts)) % 5
    adam = torch.optim.Adam([images], 0.03)
    for _ in range(60):
        loss = nn.functional.cross_entropy(logits(images), labels, reduction="sum")
        (images.grad,) = torch.autograd.grad(loss, images)
        adam.step()
        images.data.clamp_(0, 1)
    return images.detach()


def test_a_search_on_its_view_stays_away_from_traps(record_property: Callable[[str, object], None]) -> None:
    """The more so the larger the weight; a small one still gives samples that the target takes for the class."""
    target, (_, found) = trapped_target()[0], found_traps()
    starts, labels = DIGITS.dataset.split("public").take(torch.arange(50)), torch.arange(50) % 5
    traps = Traps(**{name: found[name] for name in Traps.__dataclass_fields__})
    likeness, right = [], []
    for weight in (0.0, 0.3, 0.6):
        attack = TrapAware(preset_config(TrapAware, "default", {"weight": weight}, "trap-aware"))
        images = inverted(attack._view(target, found, CPU).module, starts)
        with torch.no_grad():
            features, seen = features_and_logits(target.module, images)
        likeness.append(float(traps.likeness(features)[torch.arange(50), labels].mean()))
        right.append(float((seen.argmax(dim=1) == labels).double().mean()))
    record_property("likeness to traps by weight", likeness)
    record_property("taken for the class by weight", right)
    assert likeness[0] > likeness[1] + 0.03
    assert likeness[1] > likeness[2] + 0.3
    assert right[1] > 0.9


def test_the_view_is_counted_and_lowers_logits_by_likeness() -> None:
    target, (attack, found) = trapped_target()[0], found_traps()
    view = attack._view(target, found, CPU)
    images = DIGITS.dataset.split("public").take(torch.arange(6))
    before = target.ledger.total.queries
    with torch.no_grad():
        lowered = view.module(images)
        assert target.ledger.total.queries == before + 6
        features, logits = features_and_logits(target.module, images)
    traps = Traps(**{name: found[name] for name in Traps.__dataclass_fields__})
    torch.testing.assert_close(lowered, logits - 0.6 * traps.scale * traps.likeness(features))
    assert torch.equal(view.scores(images), target.scores(images))
    assert view.module.inner is target.module.inner


# around a base --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("trap-aware")


def test_without_weight_it_is_the_base_attack(toy: Trial) -> None:
    attack = toy.attack(weight=0.0)
    prepared = toy.prepare(attack, toy.target())
    found = list(attack.run(toy.target(), toy.cases, prepared, toy.runtime))
    base = attack.wrapped()
    alone = list(base.run(toy.target(), toy.cases, toy.prepare(base, toy.target()), toy.runtime))
    assert all(torch.equal(mine.samples, other.samples) for mine, other in zip(found, alone, strict=True))


def test_it_spends_what_it_forecasts(toy: Trial) -> None:
    attack = toy.attack()
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    assert toy.preparation[0].ledger.total == forecast.preparation
    target, _ = toy.run(attack)
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}


def test_its_prior_is_the_bases_and_its_preparation_its_own(toy: Trial) -> None:
    attack = toy.attack()
    assert isinstance(attack, HasPrior)
    one, other = (
        prior.sample(3, Random(0))
        for prior in (
            attack.prior(toy.prepared, toy.runtime),
            attack.wrapped().prior(attack.base_prepared(toy.prepared), toy.runtime),
        )
    )
    assert torch.equal(one, other)
    assert preparer(toy.registry, toy.entry, attack) == (toy.entry, attack)
    assert frozenset(TrapAwareConfig.model_fields) == TrapAware.PREPARE_FIELDS


def test_what_does_not_fit_is_refused(toy: Trial) -> None:
    alone = TrapAware(preset_config(TrapAware, "smoke", {}, "trap-aware"))
    with pytest.raises(DataError, match="base attack"):
        alone.wrapped()
    with pytest.raises(DataError, match="not prepared"):
        list(toy.attack().run(toy.target(), toy.cases, None, toy.runtime))
    with pytest.raises(DataError, match="public images"):
        toy.attack().prepare(toy.target(), None, toy.runtime)
    with pytest.raises(ConfigError, match="itself"):
        toy.attack(base="trap-aware")
    for option in ({"alpha": 0}, {"steps": 0}, {"weight": -1}, {"images": 0}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            toy.attack(**option)
