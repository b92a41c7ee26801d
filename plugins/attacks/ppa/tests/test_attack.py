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
from micore.errors import DataError
from micore.kit.losses import poincare
from micore.kit.training import TrainingConfig
from micore.runs.subjects import sample_prior, wrong_label
from micore.testing.lab import holdout_accuracy
from micore.testing.trial import Trial

# The default preset with a smaller StyleGAN that is trained for a fifth of the time, to fit in 20 s.
QUICK = {
    **PlugAndPlay.PRESETS["default"], "latent_dim": 32, "w_dim": 32, "channel_max": 32, "gan_iterations": 400,
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
    print(shares, floors)
    assert shares.mean() > max(floors) + 0.25, (shares, floors)
    assert (shares > max(floors)).sum() >= 3, (shares, floors)
