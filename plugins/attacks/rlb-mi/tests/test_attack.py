"""RLB-MI as a run calls it: it inverts a target through its scores, at the cost it forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import pytest
import torch

from mi_attack_rlb_mi.attack import ReinforcedInversion
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import preset_config
from micore.contracts import (
    Attack,
    HasForecast,
    HasGenerator,
    HasPrior,
    Prepared,
    Reconstruction,
    Subject,
)
from micore.errors import BudgetExceeded, DataError, MiError
from micore.kit.measuring import Figure, Rows, measure
from micore.kit.training import TrainingConfig
from micore.runs.subjects import sample_prior, wrong_label
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.testing.lab import holdout_accuracy, restored, train_toy
from micore.threat import Access, Ledger, Spending

IMAGES, CPU = ImageModality(), Runtime(device=torch.device("cpu"), seed=1, tile=16)
QUICK = {"iterations": 400, "restarts": 4, "episodes": 960, "updates": 3, "tests": 2}


def attack(preset: str = "smoke", **options: object) -> ReinforcedInversion:
    return ReinforcedInversion(preset_config(ReinforcedInversion, preset, options, "rlb-mi"))


# a target that can be inverted ----------------------------------------------------------------------------


class Digits:
    """A target of the digits 0-4, an adversary with pictures of 5-9, a judge that knows all ten."""

    setting = replace(
        image_toy(), dataset=open_digits(None), training=TrainingConfig(epochs=8, learning_rate=5e-3, augment="none")
    )
    attack = attack("default", **QUICK)

    def __init__(self) -> None:
        self.dataset = self.setting.dataset
        self.adapter = IMAGES.adapter(self.dataset.input)
        self.cases = IMAGES.cases("class", None, self.dataset.classes, None)
        self.module = restored(self.setting, train_toy(self.setting, IMAGES))
        self.judge = restored(self.setting, train_toy(self.setting, IMAGES, "evaluator"), "evaluator").eval()

    def target(self) -> Target:
        return Target(
            self.module, access=Access.SCORES, adapter=self.adapter, input_spec=self.dataset.input,
            classes=self.dataset.classes, ledger=Ledger(), runtime=CPU,
        )  # fmt: skip

    @cached_property
    def whole_run(self) -> tuple[Target, Prepared, list[Reconstruction]]:
        target = self.target()
        prepared = self.attack.prepare(target, self.dataset.split("public"), CPU)
        found = list(self.attack.run(target, self.cases, prepared, CPU))
        return target, prepared, sorted(found, key=lambda item: item.case.label or 0)

    @torch.no_grad()
    def recognised(self, name: str, found: Sequence[Reconstruction]) -> float:
        """Return the share that the judge takes for their class."""
        rows = Rows.of(Subject(name=name, reconstructions=found))
        hits = self.judge(self.adapter(torch.cat(rows.samples))).argmax(dim=1) == rows.labels
        return measure(Figure("accuracy", hits.double(), "share", "up"), rows, "judge@0").value


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_it_recovers_what_its_prior_does_not_show(digits: Digits) -> None:
    assert holdout_accuracy(digits.setting, IMAGES, digits.module, CPU) > 0.95
    assert holdout_accuracy(digits.setting, IMAGES, digits.judge, CPU) > 0.95
    _, prepared, found = digits.whole_run
    floors = {
        "prior-samples": sample_prior(digits.attack.prior(prepared, CPU), found, CPU),
        "wrong-label": wrong_label(found, len(digits.cases)),
    }
    measured = {name: digits.recognised(name, items) for name, items in floors.items()}
    highest = max(measured.values())
    value = digits.recognised("attack", found)
    assert value > max(2 * highest, highest + 0.15), (value, measured)


def test_it_spends_what_it_forecast_and_prepares_without_the_target(digits: Digits) -> None:
    target, _, found = digits.whole_run
    forecast = digits.attack.forecast(target.n_classes, 896)
    assert target.ledger.shared == forecast.preparation == Spending()
    assert target.ledger.cases == {case.id: forecast.per_case for case in digits.cases}
    assert forecast.per_case == Spending(queries=4 * (960 + 2 * 120))
    assert target.ledger.used_access == Access.SCORES
    assert all(item.complete for item in found)


def test_reconstructions_are_what_the_target_was_surest_of(digits: Digits) -> None:
    _, prepared, found = digits.whole_run
    generator = digits.attack.generator(prepared, CPU)
    for item in found:
        assert item.latents is not None
        assert item.latents.abs().max() <= 1
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = digits.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(generator(item.latents), item.samples, rtol=0, atol=1e-4)
        rewards = item.history["reward"]
        assert sum(rewards[-2:]) / 2 > rewards[0] + 20


# on the planted problem -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("rlb-mi", restarts=1, episodes=320)


@pytest.mark.parametrize("budget", [3, 40, 700], ids=["first", "early", "later"])
def test_a_budget_that_ends_leaves_the_best_so_far(toy: Trial, budget: int) -> None:
    target, found = toy.run(budget=budget)
    assert target.ledger.total.queries <= budget
    assert not any(item.complete for item in found)
    for item in found:
        assert toy.setting.problem(item.samples) is None
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
    assert len(found) == (0 if budget < 8 else 4)


@pytest.mark.parametrize(
    ("options", "per_agent"),
    [
        ({"mix": 0.3}, 2 * 320 + 2 * 40),
        ({"tests": 0}, 320),
        ({"noise": "scalar"}, 320 + 2 * 40),
        ({"episode_length": 3}, 3 * 320 + 2 * 40),
        ({"memory": 100}, 320 + 2 * 40),
        ({"updates": 0}, 320 + 2 * 40),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_variants_spend_what_they_forecast(toy: Trial, options: dict[str, object], per_agent: int) -> None:
    variant = toy.attack(**options)
    target, found = toy.run(variant)
    assert isinstance(variant, HasForecast)
    assert variant.forecast(4, 128).per_case == Spending(queries=per_agent)
    assert all(spent.queries == per_agent for spent in target.ledger.cases.values())
    assert len(found) == 4
    assert all(item.complete for item in found)


def test_an_agent_that_learns_earns_more_than_one_that_does_not(toy: Trial) -> None:
    def earned(updates: int) -> float:
        _, found = toy.run(toy.attack(updates=updates, episodes=640))
        return sum(item.history["reward"][-1] for item in found) / len(found)

    assert earned(2) > earned(0) + 30


def test_a_budget_without_an_answer_is_said(toy: Trial) -> None:
    with pytest.raises(BudgetExceeded, match="before the first answer"):
        list(toy.attack().run(toy.target(budget=1), toy.cases, toy.prepared, toy.runtime))


def test_answers_of_the_top_class_alone_are_enough_to_run(toy: Trial) -> None:
    target = toy.target()
    inner = target.scores

    def top(samples: torch.Tensor) -> torch.Tensor:
        scores = inner(samples)
        return torch.where(scores == scores.amax(1, keepdim=True), scores, 0)

    target.scores = top  # type: ignore[method-assign]
    found = list(toy.attack().run(target, toy.cases, toy.prepared, toy.runtime))
    assert all(torch.isfinite(torch.tensor(item.history["reward"])).all() for item in found)


# configs and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [({"episodes": 10, "environments": 8}, "does not divide"), ({"memory": 4, "environments": 8}, "memory=4")],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(MiError, match=message):
        attack(**options)


def test_what_is_missing_is_said(toy: Trial) -> None:
    with pytest.raises(DataError, match="rlb-mi needs public images"):
        attack().prepare(toy.target(), None, CPU)
    with pytest.raises(DataError, match="rlb-mi was not prepared"):
        list(attack().run(toy.target(), toy.cases, None, CPU))


def test_the_paper_takes_one_gradient_step_per_episode() -> None:
    config = attack("paper").config
    assert config.rounds * config.updates == config.rounds * config.tests == config.episodes == 40_000


def test_it_is_an_attack_whose_prior_can_be_tuned() -> None:
    for protocol in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(attack(), protocol)
