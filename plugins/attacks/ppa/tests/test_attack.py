"""PPA as a run calls it: it really inverts a trained target, and spends what it said it would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mi_attack_ppa.attack import PlugAndPlay, PlugAndPlayConfig
from mi_image.datasets.digits import open_digits
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior, Prepared, Reconstruction
from micore.kit.losses import poincare
from micore.kit.training import TrainingConfig
from micore.runs.subjects import sample_prior, wrong_label
from micore.testing.lab import holdout_accuracy
from micore.testing.trial import Trial
from micore.threat import Spending

# The default preset with a smaller StyleGAN that is trained for a fifth of the time, to fit in 20 s.
QUICK = {
    **PlugAndPlay.PRESETS["default"], "latent_dim": 32, "w_dim": 32, "channel_max": 32, "gan_iterations": 300,
    "candidates": 10, "final": 5, "final_views": 10,
}  # fmt: skip


class Digits(Trial):
    """A target of the digits 0-4, an adversary with pictures of 5-9, a judge that knows all ten."""

    def __init__(self) -> None:
        super().__init__("ppa", tile=16, **QUICK)
        training = TrainingConfig(epochs=8, learning_rate=5e-3, augment="light")
        self.setting = replace(self.setting, dataset=open_digits(None), training=training)
        self.dataset = self.setting.dataset
        self.judge = self.lab.judge(self.setting, self.runtime)

    @torch.no_grad()
    def recognised(self, found: Sequence[Reconstruction]) -> Tensor:
        """Return the share of each class that the judge takes for it, (C,)."""
        shares = []
        for item in found:
            answers = self.judge.module(self.judge.adapter(item.samples)).argmax(dim=1)
            shares.append(answers.eq(item.case.label).float().mean())
        return torch.stack(shares)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def found(digits: Digits) -> list[Reconstruction]:
    return digits.run()[1]


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("ppa")


def test_it_recovers_what_neither_prior_nor_candidates_show(digits: Digits, found: list[Reconstruction]) -> None:
    attack, prepared = digits.attack(), digits.prepared
    assert holdout_accuracy(digits.setting, digits.modality, digits.lab.module(digits.setting), digits.runtime) > 0.95
    shares = digits.recognised(found)
    assert isinstance(attack, PlugAndPlay)
    assert prepared is not None
    ground = attack.prior(prepared, digits.runtime)
    starts = ground.bank.starts(digits.cases, 5)
    candidates = [replace(item, samples=ground.render(starts[row])) for row, item in enumerate(found)]
    floors = [
        digits.recognised(items).mean()
        for items in (sample_prior(ground, found, digits.runtime), candidates, wrong_label(found, 5))
    ]
    assert shares.mean() > max(floors) + 0.25, (shares, floors)
    assert (shares > max(floors)).sum() >= 3, (shares, floors)


def test_the_poincare_distance_prefers_pictures_that_no_real_image_is_like(digits: Digits) -> None:
    """With five classes: what the limits in the README say. Real images do not have the least distance."""
    attack = digits.attack(loss="poincare")
    found = digits.run(attack)[1]
    private, module = digits.dataset.split("private"), digits.target().module
    assert private.labels is not None
    with torch.no_grad():
        real = poincare(module(private.take(range(len(private)))), private.labels).mean()
        ours = torch.stack(
            [poincare(module(item.samples), torch.full((5,), item.case.label)).mean() for item in found]
        ).mean()
    assert ours < real
    assert digits.recognised(found).mean() < 0.3


# on the toy problem ---------------------------------------------------------------------------------------


def test_views_are_counted(toy: Trial) -> None:
    attack = toy.attack(views=2, steps=5)
    target, _ = toy.run(attack)
    spent = Spending(queries=6 * 5 * 2 + 6 * 8, gradients=6 * 5 * 2)
    assert target.ledger.cases == {case.id: spent for case in toy.cases}
    assert isinstance(attack, PlugAndPlay)
    assert attack.forecast(target.n_classes, 128).per_case == spent


def test_mirror_images_double_the_bank() -> None:
    attack = PlugAndPlay(PlugAndPlayConfig(bank=300, mirror=True))
    assert attack.forecast(10, 0).preparation.queries == 600


def test_the_most_robust_candidates_are_kept_best_first(toy: Trial) -> None:
    few, all_ = (toy.run(toy.attack(final=final, steps=5))[1] for final in (2, 6))
    for kept, whole in zip(few, all_, strict=True):
        assert kept.scores.tolist() == sorted(whole.scores.tolist(), reverse=True)[:2]
        assert torch.equal(kept.samples, whole.samples[:2])


def test_without_final_views_the_picture_itself_is_scored(toy: Trial) -> None:
    target, found = toy.run(toy.attack(final_views=0, steps=3))
    assert target.ledger.cases[toy.cases[0].id].queries == 6 * 3 + 6
    for item in found:
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-4, atol=1e-5)


def test_without_steps_the_best_candidates_come_back(toy: Trial) -> None:
    attack = toy.attack(steps=0, final=6)
    assert isinstance(attack, PlugAndPlay)
    assert toy.prepared is not None
    starts = attack.prior(toy.prepared, toy.runtime).bank.starts(toy.cases, 6)
    for row, item in enumerate(toy.run(attack)[1]):
        assert item.latents is not None
        assert sorted(item.latents.tolist()) == sorted(starts[row].tolist())


def test_only_the_centre_of_a_picture_is_used(toy: Trial) -> None:
    attack = toy.attack(centre=0.5, steps=2)
    (item, *_), whole = toy.run(attack)[1], toy.attack(steps=2)
    assert isinstance(whole, PlugAndPlay)
    assert item.samples.shape[1:] == (1, 8, 8)
    assert toy.prepared is not None
    assert item.latents is not None
    with torch.no_grad():
        picture = whole.generator(toy.prepared, toy.runtime)(item.latents)
    torch.testing.assert_close(item.samples, picture[:, :, 4:12, 4:12], rtol=0, atol=1e-5)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="candidates=20 of a bank of 10"):
        PlugAndPlayConfig(bank=10, candidates=20)
    with pytest.raises(ValidationError):
        PlugAndPlayConfig(loss="hinge")


def test_it_offers_a_prior_a_forecast_and_a_generator(toy: Trial) -> None:
    attack = toy.attack()
    for contract in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(attack, contract)
    assert isinstance(attack, PlugAndPlay)
    prepared = toy.prepared
    assert prepared is not None
    weights = {name: value * 0 for name, value in attack.generator(prepared, toy.runtime).state_dict().items()}
    blank = attack.with_generator(prepared, weights)
    assert attack.prior(blank, toy.runtime).sample(2, toy.runtime.rng("x")).eq(0.5).all()
    assert not attack.prior(Prepared(state=prepared.state), toy.runtime).sample(2, toy.runtime.rng("x")).eq(0.5).any()


def test_the_published_values_are_those_of_the_authors() -> None:
    config = preset_config(PlugAndPlay, "paper", {}, "ppa")
    assert isinstance(config, PlugAndPlayConfig)
    assert (config.bank, config.psi, config.cutoff, config.candidates, config.final) == (5000, 0.5, 8, 200, 50)
    assert (config.steps, config.learning_rate, config.betas, config.loss) == (70, 0.005, (0.1, 0.1), "poincare")
    assert (config.crop_area, config.final_views) == (0.9, 100)
