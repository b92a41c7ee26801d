"""IF-GMI as a run calls it: it really inverts a trained target, stage after stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mi_attack_if_gmi.attack import IntermediateFeatures, IntermediateFeaturesConfig
from mi_image.datasets.digits import open_digits
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasPrior, Reconstruction
from micore.errors import ModelError
from micore.kit.training import TrainingConfig
from micore.runs.subjects import sample_prior, wrong_label
from micore.testing.lab import holdout_accuracy
from micore.testing.trial import Trial
from micore.threat import Spending

# The default preset with a smaller StyleGAN that is trained for a seventh of the time, to fit in 20 s.
QUICK = {
    **IntermediateFeatures.PRESETS["default"], "latent_dim": 32, "w_dim": 32, "channel_max": 32, "gan_iterations": 300,
    "restarts": 4, "final_views": 20,
}  # fmt: skip


class Digits(Trial):
    """A target of the digits 0-4, an adversary with pictures of 5-9, a judge that knows all ten."""

    def __init__(self) -> None:
        super().__init__("if-gmi", tile=20, **QUICK)
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
def toy() -> Trial:
    return Trial("if-gmi")


def test_it_recovers_what_neither_prior_nor_candidates_show(digits: Digits) -> None:
    attack, found = digits.attack(), digits.run()[1]
    assert holdout_accuracy(digits.setting, digits.modality, digits.lab.module(digits.setting), digits.runtime) > 0.95
    shares = digits.recognised(found)
    assert isinstance(attack, IntermediateFeatures)
    assert digits.prepared is not None
    ground = attack.prior(digits.prepared, digits.runtime)
    starts = ground.bank.starts(digits.cases, 4)
    candidates = [replace(item, samples=ground.render(starts[row])) for row, item in enumerate(found)]
    floors = [
        digits.recognised(items).mean()
        for items in (sample_prior(ground, found, digits.runtime), candidates, wrong_label(found, 5))
    ]
    assert shares.mean() > max(floors) + 0.25, (shares, floors)
    assert (shares > max(floors)).sum() >= 3, (shares, floors)


# on the toy problem ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "views", "final_views"), [(0, 1, 8), (2, 2, 8), (1, 1, 0)])
def test_every_stage_is_counted(toy: Trial, layers: int, views: int, final_views: int) -> None:
    attack = toy.attack(steps=4, feature_steps=3, layers=layers, views=views, final_views=final_views)
    target, found = toy.run(attack)
    searched = 3 * (4 + 3 * layers) * views
    spent = Spending(queries=searched + 3 * (layers + 1) * max(1, final_views), gradients=searched)
    assert target.ledger.cases == {case.id: spent for case in toy.cases}
    assert isinstance(attack, IntermediateFeatures)
    assert attack.forecast(target.n_classes, 128).per_case == spent
    assert all(item.complete for item in found)


def test_features_reach_what_the_code_alone_does_not(toy: Trial) -> None:
    """With a code that may hardly move, only the features lower the loss."""
    still = {"style_radii": (0.01,), "feature_steps": 20}
    code = toy.run(toy.attack(layers=0, **still))[1]
    features = toy.run(toy.attack(layers=1, feature_radii=(100.0,), **still))[1]
    assert all(ours.scores.mean() > its.scores.mean() for ours, its in zip(features, code, strict=True))


def test_the_published_way_of_dropping_the_picture_is_offered(toy: Trial) -> None:
    carried, dropped = (
        [item.samples for item in toy.run(toy.attack(carry_image=carry, layers=2, steps=2))[1]]
        for carry in (True, False)
    )
    assert not all(map(torch.equal, carried, dropped))


def test_a_budget_that_ends_in_a_later_stage_leaves_the_best_so_far(toy: Trial) -> None:
    options = {"steps": 4, "feature_steps": 50, "final_views": 8}
    first = toy.run(toy.attack(layers=0, **options))
    spent = first[0].ledger.total.queries
    target, found = toy.run(toy.attack(layers=1, **options), budget=spent + 30)
    assert target.ledger.total.queries <= spent + 30
    assert [item.case.id for item in found] == [case.id for case in toy.cases]
    assert not any(item.complete for item in found)
    for ours, its in zip(found, first[1], strict=True):
        assert torch.equal(ours.samples, its.samples)  # nobody has looked at the second stage


def test_a_prior_with_too_few_blocks_is_refused(toy: Trial) -> None:
    with pytest.raises(ModelError, match="layers=3, but the prior has 3 blocks") as caught:
        toy.run(toy.attack(layers=3))
    assert caught.value.hint == "-p layers=2"


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="restarts=20 of a bank of 10"):
        IntermediateFeaturesConfig(bank=10, restarts=20)
    with pytest.raises(ValidationError, match="radii are positive"):
        IntermediateFeaturesConfig(style_radii=(1.0, 0.0))
    with pytest.raises(ValidationError, match="feature_radii"):
        IntermediateFeaturesConfig(feature_radii=())


def test_it_offers_a_prior_and_a_forecast(toy: Trial) -> None:
    for contract in (Attack, HasPrior, HasForecast):
        assert isinstance(toy.attack(), contract)


def test_the_published_values_are_those_of_the_authors() -> None:
    config = preset_config(IntermediateFeatures, "paper", {}, "if-gmi")
    assert isinstance(config, IntermediateFeaturesConfig)
    assert (config.bank, config.psi, config.cutoff, config.restarts, config.layers) == (5000, 0.5, 8, 50, 4)
    assert (config.steps, config.feature_steps, config.learning_rate, config.betas) == (70, 25, 0.005, (0.1, 0.1))
    assert (config.loss, config.style_radii[:2], config.feature_radii[-1]) == ("poincare", (1000.0, 2000.0), 8000.0)
