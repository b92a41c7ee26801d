"""Text Revealer: steering and exchanges against hand-made models and enumeration; the planted problem."""

from __future__ import annotations

from functools import cached_property

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from mi_attack_text_revealer.attack import TextRevealer
from mi_attack_text_revealer.exchange import Exchange
from mi_attack_text_revealer.prior import TextPrior, restore_prior
from mi_attack_text_revealer.steering import _fused
from mi_text.tokenizing import END_ID, PAD_ID, decode
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasPrior, Prepared, Reconstruction
from micore.errors import AccessDenied, ConfigError, DataError
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access


class Topics(Trial):
    """Each class has words of its own."""

    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()

    @property
    def state(self) -> Prepared:
        assert self.prepared is not None
        return self.prepared

    @cached_property
    def language_model(self) -> TextPrior:
        return restore_prior(self.state.state, self.runtime)


@pytest.fixture(scope="module")
def topics() -> Topics:
    return Topics("text-revealer")


@pytest.fixture(scope="module")
def exchanged(topics: Topics) -> tuple[Target, list[Reconstruction]]:
    return topics.run(topics.attack(method="tokens"))


# equations ------------------------------------------------------------------------------------------------


def test_the_fused_distribution_is_the_geometric_mean_with_the_priors_end(topics: Topics) -> None:
    plain, moved = (topics.runtime.rng(name).normal((3, 9)) for name in ("plain", "moved"))
    fused = _fused(plain, moved, 0.7).softmax(dim=1)
    oracle = plain.softmax(1).double() ** 0.3 * moved.softmax(1).double() ** 0.7
    oracle[:, END_ID] = 0
    end = plain.softmax(1)[:, END_ID].double()
    oracle = oracle / oracle.sum(dim=1, keepdim=True) * (1 - end)[:, None]
    oracle[:, END_ID] = end
    assert torch.allclose(fused.double(), oracle, atol=1e-6)


def an_exchange(topics: Topics, target: Target, swaps: int, fluency: float) -> Exchange:
    labels = torch.tensor([0, 1])
    return Exchange(
        topics.language_model, target, labels, ["class-0", "class-1"], 16, 8, swaps, fluency, topics.runtime
    )


def test_expected_changes_are_the_gradient_at_the_written_tokens(topics: Topics) -> None:
    target = topics.target()
    exchange = an_exchange(topics, target, 4, 0.0)
    stand = exchange.start(["red cat eats milk", "blue dog sees corn"])
    numbers = topics.runtime.rng("numbers").uniform((2, 4, 2))
    proposals = exchange.propose(stand, numbers)
    for row in range(2):
        length = int(stand.lengths[row])
        one_hot = functional.one_hot(stand.ids[row : row + 1, :length], exchange_vocabulary(topics)).float()
        for swap in range(4):
            changed = functional.one_hot(proposals.ids[row, swap][None, :length], one_hot.shape[2]).float()
            assert int((proposals.ids[row, swap] != stand.ids[row]).sum()) <= 1
            oracle = slope(target, one_hot, changed - one_hot, row)
            assert float(proposals.expected[row, swap]) == pytest.approx(oracle, abs=2e-3)


def exchange_vocabulary(topics: Topics) -> int:
    return topics.language_model.module.network.size.vocabulary


def slope(target: Target, start: Tensor, direction: Tensor, label: int) -> float:
    """The derivative of the class's loss along a direction, by central differences."""
    step = 1e-2
    with torch.no_grad():
        losses = [
            functional.cross_entropy(target.module(start + sign * step * direction), torch.tensor([label]))
            for sign in (1, -1)
        ]
    return float(losses[0] - losses[1]) / (2 * step)


def test_a_text_is_scored_as_it_is_read_again(topics: Topics) -> None:
    prior = topics.language_model
    # single bytes, which nobody who reads the text would split it into
    apart = [int(prior.tokenizer.token_to_id(sign) or 0) for sign in "red"]
    (text,) = decode(prior.tokenizer, [apart])
    again = [token for token in prior.encode([text], 16)[0].tolist() if token != PAD_ID]
    assert text == "red"
    assert len(again) < len(apart)
    target = topics.target()
    stand = an_exchange(topics, target, 4, 0.0).start([text, text])
    oracle = functional.cross_entropy(target.module(["red", "red"]), torch.tensor([0, 1]), reduction="none")
    assert torch.allclose(stand.losses, oracle, atol=1e-4)


def test_rounds_never_make_the_objective_worse(topics: Topics) -> None:
    exchange = an_exchange(topics, topics.target(), 12, 0.3)
    stand = exchange.start(["red cat eats milk", "blue dog sees corn"])
    for turn in range(4):
        following, _ = exchange.round(stand, topics.runtime.rng("round", turn).uniform((2, 12, 2)))
        assert bool((exchange.objective(following) <= exchange.objective(stand) + 1e-6).all())
        stand = following


# the planted problem --------------------------------------------------------------------------------------


def test_both_methods_reveal_more_than_the_prior(
    topics: Topics, exchanged: tuple[Target, list[Reconstruction]]
) -> None:
    samples = topics.language_model.sample(200, topics.runtime.rng("samples"))
    floor = float(torch.stack([topics.setting.judge(case, samples).mean() for case in topics.cases]).mean())
    assert abs(floor) < 0.1
    assert topics.recovered(topics.whole_run[1]) > floor + 0.1
    assert topics.recovered(exchanged[1]) > floor + 0.3


def test_scores_are_the_targets_log_probabilities_of_the_strings(topics: Topics) -> None:
    target, found = topics.whole_run
    for item in found:
        answers = target.module(item.samples).log_softmax(dim=1)[:, item.case.label or 0]
        assert torch.allclose(item.scores, answers, atol=1e-4)
        assert len(set(item.samples)) == len(item.samples)


def test_it_spends_what_it_forecast(topics: Topics, exchanged: tuple[Target, list[Reconstruction]]) -> None:
    assert topics.preparation[0].ledger.total.queries == 0
    forecast = topics.attack(method="tokens").forecast(3, 192).per_case  # type: ignore[attr-defined]
    assert exchanged[0].ledger.cases == {case.id: forecast for case in topics.cases}
    most = topics.attack().forecast(3, 192).per_case  # type: ignore[attr-defined]
    steered = topics.whole_run[0].ledger.cases.values()
    assert all(0 < spent.queries <= most.queries and 0 < spent.gradients <= most.gradients for spent in steered)


def test_a_budget_that_ends_leaves_the_exchanged_texts_as_they_are(
    topics: Topics, exchanged: tuple[Target, list[Reconstruction]]
) -> None:
    budget = exchanged[0].ledger.total.queries // 2
    target, found = topics.run(topics.attack(method="tokens"), budget=budget)
    assert target.ledger.total.queries <= budget
    assert found
    assert not found[-1].complete


def test_what_is_missing_or_contradicts_itself_is_said(topics: Topics) -> None:
    attack = topics.attack()
    for protocol in (Attack, HasPrior, HasForecast):
        assert isinstance(attack, protocol)
    with pytest.raises(DataError, match="needs public texts"):
        attack.prepare(topics.target(), None, topics.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(attack.run(topics.target(), topics.cases, None, topics.runtime))
    with pytest.raises(AccessDenied):
        list(attack.run(topics.target(access=Access.SCORES), topics.cases, topics.prepared, topics.runtime))
    with pytest.raises((ConfigError, ValidationError), match="keep=3 is more than restarts=2"):
        preset_config(TextRevealer, "smoke", {"keep": 3, "restarts": 2}, "text-revealer")
