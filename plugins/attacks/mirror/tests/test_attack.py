"""MIRROR as a run calls it: it really inverts a trained target, inside its box on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mi_attack_mirror.attack import Mirror, MirrorConfig
from mi_attack_mirror.black_box import MirrorBlackBox, MirrorBlackBoxConfig
from mi_attack_mirror.space import code_box
from mi_image.bank import CandidateBank
from mi_image.datasets.digits import open_digits
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior, Reconstruction
from micore.kit.losses import cross_entropy
from micore.kit.training import TrainingConfig
from micore.runs.subjects import sample_prior, wrong_label
from micore.runtime import Random
from micore.testing.lab import holdout_accuracy
from micore.testing.trial import Trial
from micore.threat import Access

# The default preset with a smaller StyleGAN that is trained for a seventh of the time, to fit in 20 s.
SMALLER = {"latent_dim": 32, "w_dim": 32, "channel_max": 32, "gan_iterations": 300}
QUICK = {**Mirror.PRESETS["default"], **SMALLER, "restarts": 4, "steps": 120}


class Digits(Trial):
    """A target of the digits 0-4, an adversary with pictures of 5-9, a judge that knows all ten."""

    def __init__(self) -> None:
        super().__init__("mirror", tile=20, **QUICK)
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
    return Trial("mirror")


def bank(trial: Trial) -> CandidateBank:
    attack = trial.attack()
    assert isinstance(attack, Mirror)
    assert trial.prepared is not None
    return attack.prior(trial.prepared, trial.runtime).bank


def test_it_recovers_what_neither_prior_nor_candidates_show(digits: Digits) -> None:
    attack, found = digits.attack(), digits.run()[1]
    assert holdout_accuracy(digits.setting, digits.modality, digits.lab.module(digits.setting), digits.runtime) > 0.95
    shares = digits.recognised(found)
    assert isinstance(attack, Mirror)
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


def test_scores_alone_recover_more_than_prior_and_candidates_show(digits: Digits) -> None:
    """The genetic search on the same prior and bank."""
    options = {**MirrorBlackBox.PRESETS["default"], **SMALLER, "restarts": 4, "population": 24, "generations": 30}
    target = digits.target(access=Access.SCORES)
    attack = MirrorBlackBox(MirrorBlackBoxConfig.model_validate(options))
    found = list(attack.run(target, digits.cases, digits.prepared, digits.runtime))
    assert digits.prepared is not None
    ground = attack.prior(digits.prepared, digits.runtime)
    starts = ground.bank.starts(digits.cases, 4)
    candidates = [replace(item, samples=ground.render(starts[row])) for row, item in enumerate(found)]
    shares = digits.recognised(found)
    floors = [
        digits.recognised(items).mean()
        for items in (sample_prior(ground, found, digits.runtime), candidates, wrong_label(found, 5))
    ]
    assert shares.mean() > max(floors) + 0.15, (shares, floors)
    assert target.ledger.total.queries <= 5 * attack.forecast(5, 0).per_case.queries == 5 * 4 * 30 * 23


# the box --------------------------------------------------------------------------------------------------


def test_the_box_is_mean_and_deviation_in_p_space() -> None:
    styles = Random(0).normal((500, 6))
    styles = torch.where(styles < 0, 0.2 * styles, styles)  # as the mapping network leaves them
    box = code_box(CandidateBank(styles=styles, scores=torch.empty(500, 0)), 1.5)
    points = torch.where(styles < 0, 5 * styles.double(), styles.double())
    low, high = (points.mean(dim=0) + sign * 1.5 * points.std(dim=0) for sign in (-1, 1))
    torch.testing.assert_close(box.low.double(), torch.where(low < 0, low / 5, low), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(box.high.double(), torch.where(high < 0, high / 5, high), rtol=1e-4, atol=1e-5)
    inside = (styles >= box.low) & (styles <= box.high)
    assert inside.double().mean(dim=0).min() > 0.68


def test_no_code_leaves_the_box_and_some_lie_on_each_side(toy: Trial) -> None:
    attack = toy.attack(width=0.5, learning_rate=0.5)
    box = code_box(bank(toy), 0.5)
    codes = torch.cat([item.latents for item in toy.run(attack)[1] if item.latents is not None])
    assert (codes >= box.low).all()
    assert (codes <= box.high).all()
    assert (codes == box.low).any()
    assert (codes == box.high).any()


# the search -----------------------------------------------------------------------------------------------


def test_the_best_state_on_the_way_is_kept(toy: Trial) -> None:
    """With steps far too large the last state is worse than the best one; the loss is 10 CE."""
    attack, module = toy.attack(learning_rate=3.0, width=5.0), toy.target().module
    for item in toy.run(attack)[1]:
        labels = torch.full((len(item.scores),), item.case.label)
        with torch.no_grad():
            kept = 10 * cross_entropy(module(item.samples), labels)
        assert kept.mean() <= min(item.history["cross-entropy"]) + 1e-3


def test_mirror_images_are_thrown_for_colour_or_when_asked(toy: Trial) -> None:
    plain, never, always = (
        [item.samples for item in toy.run(toy.attack(steps=4, flip=flip))[1]] for flip in (None, 0.0, 1.0)
    )
    assert all(map(torch.equal, plain, never))
    assert not all(map(torch.equal, plain, always))


def test_without_steps_the_best_candidates_come_back_from_within_the_box(toy: Trial) -> None:
    starts = code_box(bank(toy), 1.0).clamp(bank(toy).starts(toy.cases, 3))
    for row, item in enumerate(toy.run(toy.attack(steps=0))[1]):
        assert item.latents is not None
        assert sorted(item.latents.tolist()) == sorted(starts[row].tolist())


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="restarts=20 of a bank of 10"):
        MirrorConfig(bank=10, restarts=20)
    with pytest.raises(ValidationError, match="width"):
        MirrorConfig(width=0)


def test_it_offers_a_prior_a_forecast_and_a_generator(toy: Trial) -> None:
    attack = toy.attack()
    for contract in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(attack, contract)


def test_the_published_values_are_those_of_the_authors() -> None:
    config = preset_config(Mirror, "paper", {}, "mirror")
    assert isinstance(config, MirrorConfig)
    assert (config.bank, config.psi, config.cutoff, config.width, config.restarts) == (100_000, 0.7, 8, 1.0, 8)
    assert (config.steps, config.learning_rate, config.weight) == (20_000, 0.25, 10.0)
