"""LOKT on the planted problem, against a target that gives labels and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_attack_lokt.attack import KnowledgeTransfer, mean_confidence, render
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior, Prepared
from micore.errors import AccessDenied, BudgetExceeded, DataError, MiError
from micore.kit.generator_training import as_float
from micore.runs.preparation import SpendingCheckpoints
from micore.runs.subjects import sample_prior
from micore.target import Target
from micore.testing import Trial
from micore.testing.counting import same
from micore.threat import Access, Spending

LEARNED = {"warm_up": 30, "iterations": 200}
"""Longer than ``smoke``: enough for the generator to draw each class."""
TINY = {
    "base": 2, "latent_dim": 4, "warm_up": 1, "iterations": 2, "gan_batch_size": 4, "critic_steps": 2, "per_class": 3,
    "surrogate_widths": [2, 3], "surrogate_steps": 2, "surrogate_batch_size": 4, "steps": 2, "restarts": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("lokt", **LEARNED)


@pytest.fixture(scope="module")
def tiny() -> Trial:
    return Trial("lokt", **TINY)


def lokt(**options: object) -> KnowledgeTransfer:
    return KnowledgeTransfer(preset_config(KnowledgeTransfer, "smoke", options, "lokt"))


def floor_of(trial: Trial, attack: KnowledgeTransfer, prepared: Prepared, found: list[Any]) -> float:
    return trial.recovered(sample_prior(attack.prior(prepared, trial.runtime), found, trial.runtime))


# it works ---------------------------------------------------------------------------------------------------


def test_it_recovers_from_labels_what_its_prior_does_not_show(toy: Trial) -> None:
    attack = lokt(**LEARNED)
    prepared_on, prepared = toy.preparation
    target, found = toy.run(attack)
    with pytest.raises(AccessDenied):
        prepared_on.scores(found[0].samples)
    assert prepared_on.access == prepared_on.ledger.used_access == Access.LABEL
    assert target.ledger.used_access is None  # the search asks nothing
    assert prepared is not None
    floor = floor_of(toy, attack, prepared, found)
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.15
    agreed = [(toy.target().labels(item.samples) == item.case.label).double().mean() for item in found]
    assert torch.stack(agreed).mean() > 0.7


def test_the_discriminator_alone_is_a_surrogate(toy: Trial) -> None:
    attack, (_, prepared) = lokt(**LEARNED, surrogate="discriminator"), toy.preparation
    assert prepared is not None
    alone = Prepared(state={"gan": prepared.state["gan"]})  # the same GAN: it does not depend on the surrogates
    found = list(attack.run(toy.target(), toy.cases, alone, toy.runtime))
    assert toy.recovered(found) > floor_of(toy, attack, alone, found) + 0.1


def test_surrogates_answer_like_the_target(toy: Trial) -> None:
    attack, (_, prepared) = lokt(**LEARNED), toy.preparation
    assert prepared is not None
    private = toy.dataset.split("private")
    images = private.take(range(len(private)))
    for logits in attack._surrogates(prepared.state, toy.runtime):
        with torch.no_grad():
            told = logits(images).argmax(dim=1)
        assert (told == toy.target().labels(images)).double().mean() > 0.6


def test_samples_belong_to_their_latents_and_come_best_first(toy: Trial) -> None:
    attack, (_, prepared) = lokt(**LEARNED), toy.preparation
    assert prepared is not None
    generator, surrogates = attack.generator(prepared, toy.runtime), attack._surrogates(prepared.state, toy.runtime)
    for item in toy.run(attack)[1]:
        labels = torch.full((3,), item.case.label)
        assert item.latents is not None
        torch.testing.assert_close(generator(item.latents, labels), item.samples, rtol=0, atol=1e-4)
        probabilities = torch.stack([logits(item.samples).softmax(dim=1) for logits in surrogates]).double().mean(dim=0)
        torch.testing.assert_close(item.scores.double(), probabilities[:, item.case.label], rtol=1e-3, atol=1e-5)
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert toy.setting.problem(item.samples) is None


def test_the_search_descends_the_mean_margin_of_the_surrogates(tiny: Trial) -> None:
    """Its first loss, by hand in float64: both views, each surrogate."""
    attack, (_, prepared) = lokt(**TINY), tiny.preparation
    assert prepared is not None
    case = tiny.cases[0]
    (found,) = attack.run(tiny.target(), [case], prepared, tiny.runtime)
    generator, surrogates = attack.generator(prepared, tiny.runtime), attack._surrogates(prepared.state, tiny.runtime)
    latents = tiny.runtime.rng("latents", case.id).normal((2, 4))
    views, labels = attack._augmentation(1, 1.0), torch.zeros(2, dtype=torch.int64)
    numbers = torch.stack([tiny.runtime.rng("views", case.id, row).uniform((50, 16))[0] for row in range(2)])
    images, total = generator(latents, labels), torch.zeros(2, dtype=torch.float64)
    for logits in surrogates:
        for view in numbers.unflatten(1, (2, 8)).unbind(1):
            answer = logits(views.apply(images, view)).double()
            total += (answer[:, 1:].amax(dim=1) - answer[:, 0]) / len(surrogates)
    assert found.history["margin"][0] == pytest.approx(float(total.mean()), rel=1e-3)


# what it costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surrogate", ["networks", "discriminator"])
def test_it_spends_what_it_forecast(tiny: Trial, surrogate: str) -> None:
    attack, target = lokt(**TINY, surrogate=surrogate), tiny.target()
    prepared = tiny.prepare(attack, target)
    forecast = attack.forecast(4, 128)
    taught = 2 * 2 * 4
    assert forecast.preparation == Spending(queries=taught + (4 * 3 if surrogate == "networks" else 0))
    assert target.ledger.shared == target.ledger.total == forecast.preparation
    found = list(attack.run(target, tiny.cases, prepared, tiny.runtime))
    assert forecast.per_case == Spending()
    assert target.ledger.total == forecast.preparation
    assert len(found) == 4
    assert all(item.complete for item in found)


@pytest.mark.parametrize(("budget", "spent"), [(3, 0), (5, 4), (16, 16), (27, 16)])
def test_a_budget_stops_exactly(tiny: Trial, budget: int, spent: int) -> None:
    """In batches of 4 for the GAN, then 12 for the surrogates."""
    target = tiny.target(budget)
    with pytest.raises(BudgetExceeded):
        tiny.prepare(lokt(**TINY), target)
    assert target.ledger.total.queries == spent


class Killing(SpendingCheckpoints):
    """Saves every state and dies at one of them."""

    def __init__(self, path: Path, target: Target, last: int) -> None:
        super().__init__(path, target.ledger, interval_s=0.0)
        self.left = last

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("last", [2, 4, 5, 7])
def test_a_killed_preparation_goes_on_with_its_spending(tiny: Trial, tmp_path: Path, last: int) -> None:
    """Killed in the GAN, at its end, in the labels, in the surrogates."""
    attack, public, path = lokt(**TINY), tiny.dataset.split("public"), tmp_path / "checkpoint.safetensors"
    whole, expected = tiny.preparation
    killed, again = tiny.target(), tiny.target()
    with pytest.raises(KeyboardInterrupt):
        attack.prepare(killed, public, tiny.runtime.with_checkpoints(Killing(path, killed, last)))
    checkpoints = SpendingCheckpoints(path, again.ledger, interval_s=1e9)
    prepared = attack.prepare(again, public, tiny.runtime.with_checkpoints(checkpoints))
    assert again.ledger.total == whole.ledger.total
    assert expected is not None
    assert same(dict(prepared.state), dict(expected.state))


# parts and errors -----------------------------------------------------------------------------------------------


def test_images_for_surrogates_are_of_every_class_and_always_the_same(tiny: Trial) -> None:
    _, prepared = tiny.preparation
    assert prepared is not None
    generator = lokt(**TINY).generator(prepared, tiny.runtime)
    images = render(generator, 4, 3, tiny.runtime)
    assert images.dtype == torch.uint8
    assert torch.equal(images, render(generator, 4, 3, tiny.runtime))
    latents = tiny.runtime.rng("lokt", "images").normal((12, 4))
    exact = generator(latents, torch.arange(4).repeat_interleave(3))
    assert (as_float(images) - exact).abs().max() <= 0.5 / 255 + 1e-6


def test_one_surrogate_has_its_own_confidence_and_margin() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]])
    confidence = mean_confidence([lambda images: images, lambda images: -images])
    expected = (logits.double().softmax(dim=1) + (-logits.double()).softmax(dim=1)) / 2
    torch.testing.assert_close(confidence(logits, torch.tensor([0, 2])).double(), expected[[0, 1], [0, 2]])


def test_what_is_missing_or_does_not_fit_is_said(tiny: Trial) -> None:
    target = tiny.target()
    with pytest.raises(DataError, match="needs public images"):
        lokt().prepare(target, None, tiny.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(lokt().run(target, tiny.cases, None, tiny.runtime))
    for size, message in ((12, "cannot make 12x12"), (8, "students need images of at least 16")):
        with pytest.raises(MiError, match=message):
            lokt().prepare(target, Blank(size), tiny.runtime)
    assert target.ledger.total.queries == 0


class Blank:
    """Public images without content (`contracts.Split`)."""

    labels = None

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 3

    def take(self, indices: object) -> torch.Tensor:
        return torch.zeros(3, 1, self.size, self.size)


def test_it_is_an_attack_whose_prior_can_be_tuned() -> None:
    for protocol in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(lokt(), protocol)
    paper = KnowledgeTransfer(preset_config(KnowledgeTransfer, "paper", {}, "lokt"))
    assert paper.forecast(1000, 30_000).preparation.queries == 19_000 * 5 * 128 + 500_000
