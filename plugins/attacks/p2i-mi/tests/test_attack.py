"""From predictions to images: what the encoder learns, which predictions it is given, what a run costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_p2i_mi.attack import PredictionToImage, _fitted
from mi_attack_p2i_mi.encoder import (
    EncoderSettings,
    EncoderTraining,
    Pairs,
    encoder_state,
    resized,
    restore_encoder,
)
from mi_attack_p2i_mi.predictions import aligned, ensembles_of_classes, log_scores
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, HasGenerator, HasPrior
from micore.errors import BudgetExceeded, DataError, MiError
from micore.runs.subjects import sample_prior
from micore.runtime import Random, Runtime
from micore.target import AnswerForm, Target
from micore.testing import Trial
from micore.threat import Access, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=16)


def attack(preset: str = "smoke", **options: object) -> PredictionToImage:
    return PredictionToImage(preset_config(PredictionToImage, preset, options, "p2i-mi"))


# on the planted problem -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("p2i-mi", gan_iterations=150, bank=256, encoder_iterations=200)


@pytest.fixture(scope="module")
def quick() -> Trial:
    return Trial("p2i-mi", gan_iterations=80, encoder_iterations=100)


def test_it_recovers_more_than_its_prior_shows(toy: Trial) -> None:
    _, found = toy.run()
    attack = toy.attack()
    assert isinstance(attack, HasPrior)
    assert toy.prepared is not None
    floor = toy.recovered(sample_prior(attack.prior(toy.prepared, toy.runtime), found, toy.runtime))
    assert abs(floor) < 0.15
    assert toy.recovered(found) > floor + 0.2


def test_it_spends_what_it_forecast(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    target, found = toy.run(attack)
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(4, 128)
    assert prepared_on.ledger.total == forecast.preparation == Spending(queries=256 + 128)
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert target.ledger.used_access == Access.SCORES
    assert all(item.complete for item in found)


def test_reconstructions_are_what_their_codes_show_and_come_surest_first(toy: Trial) -> None:
    _, found = toy.run()
    attack = toy.attack()
    assert isinstance(attack, HasGenerator)
    assert toy.prepared is not None
    generator = attack.generator(toy.prepared, toy.runtime)
    for item in found:
        assert item.latents is not None
        torch.testing.assert_close(generator(item.latents), item.samples, rtol=0, atol=1e-4)
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = toy.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)


def test_a_budget_that_ends_among_the_scores_leaves_the_images(toy: Trial) -> None:
    target, found = toy.run(budget=8)
    assert target.ledger.total.queries == 8
    assert len(found) == 4
    assert not any(item.complete for item in found)


@pytest.mark.parametrize("form", [AnswerForm(top_k=3), AnswerForm(decimals=2)])
def test_it_works_with_what_an_interface_shows(quick: Trial, form: AnswerForm) -> None:
    runtime, target = quick.runtime, quick.target()
    shown = Target(
        quick.lab.module(quick.setting), access=Access.SCORES, adapter=quick.modality.adapter(quick.dataset.input),
        input_spec=quick.dataset.input, classes=quick.dataset.classes, ledger=target.ledger, runtime=runtime, form=form,
    )  # fmt: skip
    attack = quick.attack()
    found = list(attack.run(shown, quick.cases, quick.prepare(attack, shown), runtime))
    assert all(quick.setting.problem(item.samples) is None for item in found)
    assert quick.recovered(found) > 0.1


def test_a_limit_of_questions_is_kept_and_what_was_answered_is_learnt_from() -> None:
    few = Trial("p2i-mi", gan_iterations=80, encoder_iterations=100, bank=50, asked=100)
    target, prepared = few.preparation
    assert prepared is not None
    assert target.ledger.total == Spending(queries=50 + 100)
    assert len(prepared.state["answers"]["scores"]) == 100
    assert few.recovered(few.run()[1]) > 0.1


def test_a_budget_that_is_too_small_for_the_questions_is_not_exceeded(quick: Trial) -> None:
    target = quick.target(budget=100)
    with pytest.raises(BudgetExceeded):
        quick.prepare(quick.attack(), target)
    assert target.ledger.total.queries <= 100


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    with pytest.raises(DataError, match="p2i-mi needs public images"):
        attack().prepare(toy.target(), None, CPU)
    with pytest.raises(DataError, match="p2i-mi was not prepared"):
        list(attack().run(toy.target(), toy.cases, None, CPU))
    with pytest.raises(MiError, match="cutoff"):
        attack(cutoff=2)


def test_it_is_an_attack_whose_prior_can_be_tuned() -> None:
    for protocol in (Attack, HasPrior, HasForecast, HasGenerator):
        assert isinstance(attack(), protocol)


# predictions ----------------------------------------------------------------------------------------------

scores = st.lists(st.floats(0.001, 1), min_size=4, max_size=4).map(lambda row: torch.tensor([row]) / sum(row))


@settings(deadline=None)
@given(scores, st.integers(0, 3), st.floats(0.01, 0.5))
def test_aligned_predictions_are_distributions_with_the_same_doubts(row: Tensor, label: int, boost: float) -> None:
    changed, own = aligned(row, torch.tensor([label]), boost), float(row[0, label])
    assert float(changed.sum()) == pytest.approx(1, abs=1e-5)
    assert float(changed[0, label]) == pytest.approx(own + boost if own < 1 - boost - 1e-6 else own, abs=1e-5)
    kept = [index for index in range(4) if index != label]
    torch.testing.assert_close(
        changed[0, kept] * row[0, kept].sum(), row[0, kept] * changed[0, kept].sum(), rtol=1e-3, atol=1e-6
    )


def test_alignment_is_the_published_formula() -> None:
    row = torch.tensor([[0.6, 0.3, 0.1]])
    expected = row - 0.035 * row / (1 - 0.6)
    expected[0, 0] = 0.635
    torch.testing.assert_close(aligned(row, torch.tensor([0]), 0.035), expected)
    sure = torch.tensor([[0.97, 0.02, 0.01]])
    assert torch.equal(aligned(sure, torch.tensor([0]), 0.035), sure)


def test_ensembles_share_out_the_nearest_predictions() -> None:
    answers = torch.tensor([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    found = ensembles_of_classes(answers, torch.tensor([0]), draws=2, members=2, boost=0.05)
    assert found.predictions.shape == (1, 2, 2, 2)
    own = torch.tensor([[[0.95, 0.45], [0.55, 0.25]]])
    torch.testing.assert_close(found.predictions[..., 0], own)
    torch.testing.assert_close(found.weights, own / torch.tensor([[[1.4], [0.8]]]))
    many = ensembles_of_classes(answers, torch.tensor([0]), draws=3, members=2, boost=0.0)
    torch.testing.assert_close(many.weights[0, 1], torch.tensor([0.5, 0.9]) / 1.4)


def test_an_ensemble_of_a_class_that_nothing_resembles_is_still_one() -> None:
    found = ensembles_of_classes(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 1, 2, boost=0.0)
    torch.testing.assert_close(found.predictions[0, 0], torch.tensor([[1.0, 0.0]] * 2))
    torch.testing.assert_close(found.weights, torch.full((1, 1, 2), 0.5))


def test_log_scores_are_bounded() -> None:
    assert log_scores(torch.tensor([1.0, 0.0, 1e-30])).tolist() == [0.0, -50.0, -50.0]
    assert float(log_scores(torch.tensor([0.25]))) == pytest.approx(math.log(0.25))


# the encoder ----------------------------------------------------------------------------------------------

SETTINGS = EncoderSettings(width=8, iterations=150, batch_size=32, learning_rate=5e-3, code_weight=1.0)
BARS = torch.linspace(-1, 1, 8)


def planted_pairs() -> Pairs:
    """Predictions that tell the codes: three scores of codes of two numbers, and images that show the codes."""
    styles = Random(3).normal((200, 2))
    answers = torch.cat([styles, torch.zeros(200, 1)], dim=1).softmax(dim=1)
    return Pairs(styles=styles, scores=answers, images=show(styles), public_scores=answers)


def show(ws: Tensor) -> Tensor:
    """Make pictures (B, 1, 8, 8): the first number is the slope from left to right, the second from top to bottom."""
    codes = ws if ws.ndim == 2 else ws.mean(dim=1)
    return (codes[:, :1, None] * BARS[None, None] + codes[:, 1:, None] * BARS[None, :, None]).sigmoid()[:, None]


def test_the_encoder_learns_codes_from_predictions() -> None:
    pairs = planted_pairs()
    encoder = restore_encoder(encoder_state(show, 3, pairs, SETTINGS, CPU), CPU)
    codes = encoder(pairs.scores)
    assert codes.shape == (200, 3, 2)
    assert (codes - pairs.styles[:, None]).square().mean() < 0.2
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_images_alone_teach_it_too_and_its_own_picture_resembles_them() -> None:
    pairs = planted_pairs()
    settings = replace(SETTINGS, code_weight=0.0)
    encoder = restore_encoder(encoder_state(show, 3, pairs, settings, CPU), CPU)
    assert (encoder(pairs.scores).mean(dim=1) - pairs.styles).square().mean() < 0.3
    picture, _ = encoder.look(pairs.scores)
    spread = (pairs.images - pairs.images.mean(dim=0)).square().mean()
    assert (picture - pairs.images).square().mean() < 0.3 * spread


def test_the_rate_falls_to_a_tenth_after_each_third() -> None:
    pairs, settings = planted_pairs(), replace(SETTINGS, iterations=3)
    encoder = restore_encoder(encoder_state(show, 3, pairs, replace(SETTINGS, iterations=1), CPU), CPU)
    training, moves = EncoderTraining(encoder.requires_grad_(True), show, pairs, settings, Random(5)), []
    for _ in range(3):
        before = encoder.codes[0].weight.detach().clone()
        training.step()
        moves.append(float((encoder.codes[0].weight.detach() - before).abs().max()))
    assert moves[0] > 4 * moves[1] > 16 * moves[2] > 0


@pytest.mark.parametrize(("side", "expected"), [(8, 8), (20, 16)])
def test_its_own_picture_has_a_side_that_a_decoder_can_make(side: int, expected: int) -> None:
    pairs = planted_pairs()
    large = replace(pairs, images=resized(pairs.images, side))
    state = encoder_state(
        lambda ws: resized(show(ws), side), 3, large, replace(SETTINGS, iterations=1, batch_size=4), CPU
    )  # fmt: skip
    picture, codes = restore_encoder(state, CPU).look(pairs.scores[:2])
    assert picture.shape == (2, 1, expected, expected)
    assert codes.shape == (2, 3, 2)


def test_a_training_goes_on_bit_for_bit() -> None:
    pairs = planted_pairs()

    def training() -> EncoderTraining:
        encoder = restore_encoder(encoder_state(show, 3, pairs, replace(SETTINGS, iterations=1), CPU), CPU)
        return EncoderTraining(encoder.requires_grad_(True), show, pairs, SETTINGS, Random(5))

    whole, first, second = training(), training(), training()
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second.load(first.state())
    for _ in range(3):
        second.step()
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, second.encoder.state_dict()[name]), name


def test_public_images_are_fitted_to_the_prior() -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert _fitted(images, torch.zeros(1, 3, 16, 16)).shape == (2, 3, 16, 16)
    assert torch.equal(_fitted(images, torch.zeros(1, 1, 8, 8)), images)
