"""GMI's masked variant: what it completes is private, and what it shows beside that is the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pytest
import torch
from torch import Tensor

from mi_attack_gmi.masked import MaskedInversion
from mi_image.corruptions import CORRUPTIONS
from mi_image.instances import instance_floors
from mi_image.modality import ImageModality
from micore.configs import preset_config
from micore.contracts import Attack, HasControl, HasForecast, Reconstruction
from micore.errors import DataError, UsageError
from micore.target import Target
from micore.testing import Trial
from micore.testing.lab import holdout_accuracy

IMAGES = ImageModality()
HIDDEN = CORRUPTIONS["centre"].apply(torch.zeros(1, 1, 16, 16), torch.empty(1, 0))[1][0, 0] > 0


def attack(**options: object) -> MaskedInversion:
    return MaskedInversion(preset_config(MaskedInversion, "smoke", options, "gmi-masked"))


class Keyed(Trial):
    """The planted problem: what the centre shows is bound to a spot at the border, by the target alone."""

    def __init__(self) -> None:
        super().__init__("gmi-masked", steps=20)
        self.truths = IMAGES.truths(self.cases, self.dataset)

    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()

    @cached_property
    def controls(self) -> list[Reconstruction]:
        return list(self.attack().control(self.cases, self.prepared, self.runtime))

    def correlation(self, found: Sequence[Reconstruction]) -> float:
        """Return the correlation of completions with the truth over the hidden pixels."""

        def one(sample: Tensor, truth: Tensor) -> float:
            pair = torch.stack([sample[0][HIDDEN], truth[0][HIDDEN]])
            return 0.0 if float(pair[0].std()) < 1e-6 else float(torch.corrcoef(pair)[0, 1])

        values = [one(sample, self.truths[item.case.id].sample[0]) for item in found for sample in item.samples]
        return sum(values) / len(values)


@pytest.fixture(scope="module")
def keyed() -> Keyed:
    return Keyed()


def test_it_recovers_what_neither_prior_nor_public_images_show(keyed: Keyed) -> None:
    module = keyed.lab.module(keyed.setting)
    assert holdout_accuracy(keyed.setting, IMAGES, module, keyed.runtime) > 0.9
    _, found = keyed.whole_run
    floors = {"no-target": keyed.controls, **instance_floors(keyed.cases, keyed.dataset)}
    contrasts = {name: keyed.recovered(items) for name, items in floors.items()}
    correlations = {name: keyed.correlation(items) for name, items in floors.items()}
    assert keyed.recovered(found) > max(contrasts.values()) + 0.1, (keyed.recovered(found), contrasts)
    assert keyed.correlation(found) > max(correlations.values()) + 0.1, (keyed.correlation(found), correlations)


def test_visible_pixels_are_the_evidence(keyed: Keyed) -> None:
    for item in keyed.whole_run[1]:
        truth = keyed.truths[item.case.id].sample
        assert all(torch.equal(sample[0][~HIDDEN], truth[0, 0][~HIDDEN]) for sample in item.samples)
        assert item.latents is not None
        assert item.latents.abs().max() <= 1


def test_it_spends_what_it_forecast(keyed: Keyed) -> None:
    target, found = keyed.whole_run
    forecast = attack(steps=20).forecast(target.n_classes, 256)
    assert keyed.preparation[0].ledger.total == forecast.preparation
    assert forecast.preparation.queries == forecast.preparation.gradients == 2 * 16 * 40
    assert target.ledger.cases == {case.id: forecast.per_case for case in keyed.cases}
    assert target.ledger.shared.queries == 0
    assert all(item.complete and len(item.samples) == 2 for item in found)


@pytest.mark.parametrize("budget", [100, 400], ids=["among the guesses", "in the search"])
def test_a_budget_that_ends_leaves_what_was_found(keyed: Keyed, budget: int) -> None:
    target, found = keyed.run(budget=budget)
    assert found
    assert not any(item.complete for item in found)
    assert all(keyed.setting.problem(item.samples) is None for item in found)
    assert target.ledger.total.queries <= budget


def test_the_control_asks_nothing_and_aims_at_nothing(keyed: Keyed) -> None:
    assert [len(item.samples) for item in keyed.controls] == [len(item.samples) for item in keyed.whole_run[1]]
    assert abs(keyed.recovered(keyed.controls)) < 0.1


@pytest.mark.parametrize("kind", ["bottom", "scattered", "blur"])
def test_other_evidence(keyed: Keyed, kind: str) -> None:
    masked = attack(evidence=kind, iterations=1, steps=1, evidence_weight=0.1)
    cases = IMAGES.cases("instance", keyed.dataset, keyed.dataset.classes, "0-1", kind)
    prepared = keyed.prepare(masked, keyed.target())
    assert len(list(masked.run(keyed.target(), cases, prepared, keyed.runtime))) == 2
    with pytest.raises(UsageError, match=f"prepared for evidence '{kind}'"):
        list(masked.run(keyed.target(), keyed.cases[:1], prepared, keyed.runtime))


def test_what_is_missing_is_said(keyed: Keyed) -> None:
    with pytest.raises(DataError, match="gmi-masked needs public images"):
        attack().prepare(keyed.target(), None, keyed.runtime)
    with pytest.raises(DataError, match="gmi-masked was not prepared"):
        list(attack().run(keyed.target(), keyed.cases, None, keyed.runtime))


def test_it_is_an_attack_with_a_control_and_a_forecast() -> None:
    for protocol in (Attack, HasControl, HasForecast):
        assert isinstance(attack(), protocol)
    assert attack(diversity="pixels").forecast(4, 256).preparation.queries == 0
