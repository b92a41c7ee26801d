"""SecretGen on the planted problem: it recovers, spends what it said, and keeps what a budget leaves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pytest
import torch
from pydantic import ValidationError

from mi_attack_secretgen.attack import SecretGen, SecretGenBlackBox
from mi_image.modality import ImageModality
from micore.configs import preset_config
from micore.contracts import Attack, HasControl, HasForecast, Reconstruction
from micore.errors import AccessDenied, ConfigError, DataError, UsageError
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access

KINDS = {"secretgen": SecretGen, "secretgen-bb": SecretGenBlackBox}
IMAGES = ImageModality()


def attack(name: str = "secretgen", **options: object) -> SecretGen:
    return KINDS[name](preset_config(KINDS[name], "smoke", options, name))


class Keyed(Trial):
    """What the centre of an image shows is bound to a spot at its border, by the target alone."""

    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()

    @cached_property
    def controls(self) -> list[Reconstruction]:
        return list(self.attack().control(self.cases, self.prepared, self.runtime))


@pytest.fixture(scope="module", params=list(KINDS))
def keyed(request: pytest.FixtureRequest) -> Keyed:
    return Keyed(request.param)


def test_it_recovers_what_its_own_completions_do_not_show(keyed: Keyed) -> None:
    assert [len(item.samples) for item in keyed.controls] == [len(item.samples) for item in keyed.whole_run[1]]
    floor = keyed.recovered(keyed.controls)
    assert abs(floor) < 0.1
    assert keyed.recovered(keyed.whole_run[1]) > floor + 0.1


def test_it_spends_what_it_forecast(keyed: Keyed) -> None:
    target, found = keyed.whole_run
    forecast = keyed.attack().forecast(target.n_classes, 256)
    prepared = keyed.preparation[0].ledger
    assert prepared.total == forecast.preparation
    assert target.ledger.cases == {case.id: forecast.per_case for case in keyed.cases}
    assert target.ledger.shared.queries == 0
    assert all(item.complete and len(item.samples) == 1 for item in found)


def test_scores_alone_need_no_gradients_and_labels_are_not_enough(keyed: Keyed) -> None:
    target, _ = keyed.whole_run
    black_box = keyed.spec.access == Access.SCORES
    assert target.ledger.used_access == keyed.spec.access
    assert (target.ledger.total.gradients == 0) is black_box
    less = keyed.target(access=Access(keyed.spec.access - 1))
    with pytest.raises(AccessDenied):
        list(keyed.attack().run(less, keyed.cases[:1], keyed.prepared, keyed.runtime))


def test_visible_pixels_are_the_evidence(keyed: Keyed) -> None:
    for item in keyed.whole_run[1]:
        evidence = item.case.evidence
        shown = (evidence.mask == 0).expand_as(evidence.image)
        assert all(torch.equal(sample[shown], evidence.image[shown]) for sample in item.samples)


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_budget_that_ends_leaves_what_was_found(keyed: Keyed, share: float) -> None:
    budget = int(share * keyed.whole_run[0].ledger.total.queries)
    target, found = keyed.run(budget=budget)
    assert found
    assert target.ledger.total.queries <= budget
    assert all(keyed.setting.problem(item.samples) is None for item in found)
    assert not all(item.complete for item in found)
    if share < 0.5:
        assert len(found) < len(keyed.cases)  # of the others nothing is known


def test_without_cut_outs_it_asks_about_completions_alone(keyed: Keyed) -> None:
    plain = keyed.attack(cut_outs=False)
    target, _ = keyed.run(plain)
    forecast = plain.forecast(4, 256)
    assert target.ledger.cases == {case.id: forecast.per_case for case in keyed.cases}
    views = keyed.attack().forecast(4, 256).per_case.queries - forecast.per_case.queries
    assert views == 16 * keyed.attack().config.completions


def test_the_best_of_several_tries_is_kept(keyed: Keyed) -> None:
    def surest(**options: object) -> Sequence[float]:
        return [float(item.scores[0]) for item in keyed.run(keyed.attack(**options))[1]]

    one, three = surest(), surest(tries=3)
    assert sum(three) >= sum(one)
    both = keyed.run(keyed.attack(tries=3, keep=2))[1]
    assert all(len(item.samples) == 2 and item.scores[0] >= item.scores[1] for item in both)


def test_evidence_of_another_kind_is_refused(keyed: Keyed) -> None:
    cases = IMAGES.cases("instance", keyed.dataset, keyed.dataset.classes, "0", "bottom")
    with pytest.raises(UsageError, match="prepared for evidence 'centre'"):
        list(keyed.attack().run(keyed.target(), cases, keyed.prepared, keyed.runtime))


def test_what_is_missing_is_said(keyed: Keyed) -> None:
    name = keyed.spec.name
    with pytest.raises(DataError, match=f"{name} needs public images"):
        attack(name).prepare(keyed.target(), None, keyed.runtime)
    with pytest.raises(DataError, match=f"{name} was not prepared"):
        list(attack(name).run(keyed.target(), keyed.cases, None, keyed.runtime))


def test_a_config_that_contradicts_itself_is_refused() -> None:
    with pytest.raises((ConfigError, ValidationError), match="keep=3 is more than tries=2"):
        attack(tries=2, keep=3)
    with pytest.raises((ConfigError, ValidationError), match="diversity"):
        attack("secretgen-bb", diversity="target")


def test_both_are_attacks_with_a_control_and_a_forecast() -> None:
    for name in KINDS:
        for protocol in (Attack, HasControl, HasForecast):
            assert isinstance(attack(name), protocol)
    assert attack().forecast(4, 256).preparation.gradients == 2 * 16 * 40
    assert attack("secretgen-bb").forecast(4, 256).preparation.queries == 0
