"""A student of the answers, and white-box attacks on it: what it recovers, what it costs, what it may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_attack_surrogate.attack import Surrogate
from mi_attack_surrogate.student_view import Committee, student_view
from mi_attack_surrogate.teaching import _whole, asked_images, mixed
from micore.attacks import build_attack, preparer
from micore.configs import preset_config
from micore.contracts import HasForecast, HasPrior, Prepared, Reconstruction, WrapsAttack
from micore.errors import AccessDenied, BudgetExceeded, ConfigError, DataError
from micore.runs.subjects import sample_prior
from micore.target import AnswerForm, Target
from micore.testing import Trial
from micore.threat import Access, Ledger, Spending

LEARNED = {"base": "gmi", "student_epochs": 20}


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("surrogate", **LEARNED)


@pytest.fixture(scope="module")
def tiny() -> Trial:
    return Trial("surrogate", base="mi-face", student_epochs=1, views=1, mixtures=1, base_options={"steps": 3})


@dataclass
class Learned:
    """What the attack learned and found with the labels of a target whose gradients are none."""

    asked: Target
    prepared: Prepared
    searched: Target
    found: list[Reconstruction]


@pytest.fixture(scope="module")
def learned(toy: Trial) -> Learned:
    module = Steps(toy.lab.module(toy.setting))
    asked, searched = (target_of(toy, module, Access.LABEL) for _ in range(2))
    prepared = toy.prepare(toy.attack(), asked)
    assert prepared is not None
    return Learned(asked, prepared, searched, list(toy.attack().run(searched, toy.cases, prepared, toy.runtime)))


def target_of(trial: Trial, module: nn.Module, access: Access, form: AnswerForm | None = None) -> Target:
    """The toy target with another network or interface."""
    return Target(
        module, access=access, adapter=trial.modality.adapter(trial.dataset.input), input_spec=trial.dataset.input,
        classes=trial.dataset.classes, ledger=Ledger(), runtime=trial.runtime, form=form,
    )  # fmt: skip


class Steps(nn.Module):
    """A network whose logits move in steps, so that they have no gradients at all."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.inner(inputs)
        return logits.round(decimals=1)


# it works -----------------------------------------------------------------------------------------------------


def test_it_recovers_from_labels_what_its_prior_does_not_show(toy: Trial, learned: Learned) -> None:
    """The prior is a GAN of the public images; the judge is the toy's own, which knows where the spots are."""
    with pytest.raises(AccessDenied):
        learned.asked.scores(learned.found[0].samples)
    assert learned.asked.ledger.used_access == Access.LABEL
    assert learned.searched.ledger.used_access is None
    prior = toy.attack().prior(learned.prepared, toy.runtime)
    floor = toy.recovered(sample_prior(prior, learned.found, toy.runtime))
    assert abs(floor) < 0.15
    assert toy.recovered(learned.found) > floor + 0.15


def test_students_answer_like_the_target(toy: Trial, learned: Learned) -> None:
    private = toy.dataset.split("private")
    images = private.take(range(len(private)))
    view = student_view(toy.target(), learned.prepared.state["students"], toy.runtime)
    assert (view.labels(images) == toy.target().labels(images)).double().mean() > 0.6


def test_it_goes_around_gradients_that_are_none(toy: Trial, learned: Learned) -> None:
    """White box, the base attack finds no way there; the answers have told the student one."""
    base, alone = toy.attack().wrapped(), target_of(toy, Steps(toy.lab.module(toy.setting)), Access.WHITE_BOX)
    blind = base.run(alone, toy.cases, toy.attack().base_prepared(learned.prepared), toy.runtime)
    assert toy.recovered(learned.found) > toy.recovered(list(blind)) + 0.15


# what it costs and sees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 3 * 128), ({"mixtures": 0}, 256), ({"asked": 100}, 228), ({"views": 0, "mixtures": 2}, 384)],
)
def test_it_costs_exactly_the_public_queries(tiny: Trial, options: dict[str, Any], expected: int) -> None:
    attack, target = tiny.attack(**options), tiny.target()
    prepared = tiny.prepare(attack, target)
    forecast = attack.forecast(4, 128)
    assert forecast.preparation == Spending(queries=expected) == target.ledger.total == target.ledger.shared
    found = list(attack.run(target, tiny.cases, prepared, tiny.runtime))
    assert forecast.per_case == Spending()
    assert target.ledger.total == Spending(queries=expected)
    assert target.ledger.cases == {}
    assert [item.case for item in found] == tiny.cases


def test_a_budget_that_is_too_small_ends_it(tiny: Trial) -> None:
    target = tiny.target(300)
    with pytest.raises(BudgetExceeded):
        tiny.prepare(tiny.attack(), target)
    assert target.ledger.total.queries == 256  # whole batches


def test_it_learns_scores_where_they_are_granted(tiny: Trial) -> None:
    for granted, options, used in (
        (Access.LABEL, {}, Access.LABEL), (Access.SCORES, {}, Access.SCORES), (Access.WHITE_BOX, {}, Access.SCORES),
        (Access.SCORES, {"answers": "labels"}, Access.LABEL),
    ):  # fmt: skip
        target = tiny.target(access=granted)
        tiny.prepare(tiny.attack(**options), target)
        assert target.ledger.used_access == used


def test_rounded_and_cut_scores_are_learned_as_probabilities(tiny: Trial) -> None:
    scores = torch.tensor([[0.7, 0.0, 0.0], [0.3, 0.3, 0.0], [0.0, 0.0, 0.0]])
    expected = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3] * 3]
    torch.testing.assert_close(_whole(scores), torch.tensor(expected))
    module = tiny.lab.module(tiny.setting)
    target = target_of(tiny, module, Access.SCORES, AnswerForm(top_k=1, decimals=0))
    prepared = tiny.prepare(tiny.attack(), target)
    assert prepared is not None
    weights = prepared.state["students"]["weights"][0].values()
    assert all(bool(torch.isfinite(value).all()) for value in weights)


# parts --------------------------------------------------------------------------------------------------------


def test_mixtures_lie_between_two_public_images(tiny: Trial) -> None:
    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    made = mixed(images, 50, tiny.runtime)
    assert made.shape == (50, 1, 4, 4)
    assert (made.flatten(1).std(dim=1) < 1e-6).all()
    assert 0 <= float(made.min()) < float(made.max()) <= 1
    assert ((made > 0.05) & (made < 0.95)).any()
    assert torch.equal(made, mixed(images, 50, tiny.runtime))


def test_views_and_mixtures_come_after_the_public_images(tiny: Trial) -> None:
    public = tiny.dataset.split("public")
    images = asked_images(tiny.attack().config, public, tiny.runtime)
    assert images.shape == (384, 1, 16, 16)
    assert torch.equal(images[:128], public.take(range(128)))


def test_a_committee_gives_the_mean_of_its_members() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        members = [nn.Linear(4, 3) for _ in range(3)]
    inputs = torch.arange(8.0).view(2, 4)
    expected = sum(member(inputs).double() for member in members) / 3
    torch.testing.assert_close(Committee(members)(inputs).double(), expected)


def test_the_base_sees_a_white_box_of_the_students_own_shape(tiny: Trial) -> None:
    _, prepared = tiny.preparation
    target = tiny.target()
    assert prepared is not None
    view, images = student_view(target, prepared.state["students"], tiny.runtime), torch.rand(3, 1, 16, 16)
    assert (view.access, view.input_spec.shape, view.n_classes) == (Access.WHITE_BOX, (1, 16, 16), 4)
    torch.testing.assert_close(view.scores(images), view.module(images).softmax(dim=1))
    assert torch.equal(view.labels(images), view.scores(images).argmax(dim=1))
    assert view.module(torch.rand(2, 3, 20, 20)).shape == (2, 4)  # as any target, it fits what it is shown
    assert view.ledger.total.queries > 0
    assert target.ledger.total == Spending()


@pytest.mark.parametrize("base", ["deep-inversion", "plmi"])
def test_bases_that_look_into_the_network_fit(base: str) -> None:
    trial = Trial("surrogate", base=base, base_options={"steps": 3}, student_epochs=1, views=0, student_widths=[4, 4])
    target, found = trial.run()
    assert len(found) == 4
    assert target.ledger.total == Spending()


def test_it_prepares_itself_and_offers_what_its_base_has(toy: Trial, tiny: Trial) -> None:
    attack = toy.attack()
    entry, prepares = preparer(toy.registry, toy.entry, attack)
    assert prepares is attack
    assert entry.spec.name == "surrogate"
    assert isinstance(attack, WrapsAttack)
    assert [isinstance(each, HasPrior) for each in (attack, tiny.attack())] == [True, False]
    assert isinstance(attack, HasForecast)
    _, prepared = tiny.preparation
    assert prepared is not None
    assert prepared.state["base"] == {}  # this base prepares nothing


def test_only_a_wrapper_with_a_model_of_its_own_opens_it(toy: Trial) -> None:
    assert Surrogate.ATTACKS_OWN_MODEL
    with pytest.raises(ConfigError, match="itself"):
        toy.attack(base="surrogate")
    with pytest.raises(ConfigError, match="goal instance"):
        toy.attack(base="gmi-masked")
    entry = toy.registry.find("attack", "surrogate")
    nested = build_attack(toy.registry, entry, "smoke", {"base": "ppdg-mi"})
    assert isinstance(nested.wrapped(), WrapsAttack)


def test_what_is_missing_is_said(tiny: Trial) -> None:
    attack, target = tiny.attack(), tiny.target()
    with pytest.raises(DataError, match="needs public images"):
        attack.prepare(target, None, tiny.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(attack.run(target, tiny.cases, None, tiny.runtime))
    with pytest.raises(DataError, match="not given its base attack"):
        Surrogate(preset_config(Surrogate, "smoke", {}, "surrogate")).wrapped()
    assert target.ledger.total == Spending()
