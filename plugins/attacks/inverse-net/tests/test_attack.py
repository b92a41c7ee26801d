"""Inversion by training as a run calls it, and the vectors that it decodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_inverse_net.attack import InverseNetwork
from mi_attack_inverse_net.decoder import DecoderSettings, decoder_state, restore_decoder
from mi_attack_inverse_net.scores import truncated_logs, vectors_of_classes
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import preset_config
from micore.contracts import Attack, HasForecast, Prepared, Reconstruction, Subject
from micore.errors import BudgetExceeded, DataError, MiError
from micore.kit.measuring import Figure, Rows, measure
from micore.kit.training import TrainingConfig
from micore.runs.subjects import wrong_label
from micore.runtime import Runtime
from micore.target import AnswerForm, Target
from micore.testing import Trial
from micore.testing.lab import holdout_accuracy, restored, train_toy
from micore.threat import Access, Ledger, Spending

IMAGES, CPU = ImageModality(), Runtime(device=torch.device("cpu"), seed=1, tile=16)


def attack(preset: str = "smoke", **options: object) -> InverseNetwork:
    return InverseNetwork(preset_config(InverseNetwork, preset, options, "inverse-net"))


# a target that can be inverted ----------------------------------------------------------------------------


class Digits:
    """A target of the digits 0-4, an adversary with pictures of 5-9, a judge that knows all ten."""

    setting = replace(
        image_toy(), dataset=open_digits(None), training=TrainingConfig(epochs=8, learning_rate=5e-3, augment="none")
    )
    attack = attack("default", views=4, iterations=800)

    def __init__(self) -> None:
        self.dataset = self.setting.dataset
        self.adapter = IMAGES.adapter(self.dataset.input)
        self.cases = IMAGES.cases("class", None, self.dataset.classes, None)
        self.module = restored(self.setting, train_toy(self.setting, IMAGES))
        self.judge = restored(self.setting, train_toy(self.setting, IMAGES, "evaluator"), "evaluator").eval()
        public = self.dataset.split("public")
        self.public = public.take(torch.arange(len(public)))

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


def test_it_recovers_what_public_images_do_not_show(digits: Digits) -> None:
    assert holdout_accuracy(digits.setting, IMAGES, digits.module, CPU) > 0.95
    assert holdout_accuracy(digits.setting, IMAGES, digits.judge, CPU) > 0.95
    _, _, found = digits.whole_run
    nothing = [replace(item, samples=digits.public, scores=torch.zeros(len(digits.public))) for item in found]
    floors = {"public": nothing, "wrong-label": wrong_label(found, len(digits.cases))}
    measured = {name: digits.recognised(name, items) for name, items in floors.items()}
    highest = max(measured.values())
    value = digits.recognised("attack", found)
    assert value > max(2 * highest, highest + 0.15), (value, measured)


def test_it_spends_what_it_forecast(digits: Digits) -> None:
    target, _, found = digits.whole_run
    forecast = digits.attack.forecast(target.n_classes, len(digits.public))
    assert target.ledger.shared == forecast.preparation == Spending(queries=5 * len(digits.public))
    assert target.ledger.cases == {case.id: forecast.per_case for case in digits.cases}
    assert target.ledger.used_access == Access.SCORES
    assert all(item.complete for item in found)


def test_reconstructions_come_surest_first(digits: Digits) -> None:
    _, _, found = digits.whole_run
    for item in found:
        assert len(item.samples) == 10
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = digits.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)


def test_a_decoder_rebuilds_public_images_from_their_scores(digits: Digits) -> None:
    vectors = truncated_logs(digits.target().scores(digits.public), 1000, 50.0)
    settings = DecoderSettings(width=16, iterations=1000, batch_size=32, learning_rate=2e-3)
    decoder = restore_decoder(decoder_state(vectors, digits.public, settings, CPU), CPU)
    error = (decoder(vectors) - digits.public).square().mean()
    mean_error = (digits.public.mean(dim=0) - digits.public).square().mean()
    assert error < 0.85 * mean_error


# vectors --------------------------------------------------------------------------------------------------

scores = st.lists(st.floats(0.001, 1), min_size=4, max_size=4).map(lambda row: torch.tensor([row]) / sum(row))


@settings(deadline=None)
@given(scores, st.integers(1, 6))
def test_only_the_largest_scores_count(row: Tensor, kept: int) -> None:
    read = truncated_logs(row, kept, 50.0)
    assert int((read > 0).sum()) == min(kept, 4)
    order = sorted(range(4), key=lambda index: -float(row[0, index]))
    for rank, index in enumerate(order):
        expected = 1 + math.log(float(row[0, index])) / 50 if rank < kept else 0.0
        assert float(read[0, index]) == pytest.approx(expected, abs=1e-5)


def test_scores_of_zero_read_as_zero_and_one_as_one() -> None:
    assert truncated_logs(torch.tensor([[1.0, 0.0, 0.0]]), 3, 50.0).tolist() == [[1.0, 0.0, 0.0]]


def test_a_class_is_stood_for_by_the_public_images_that_come_nearest() -> None:
    answers = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
    vectors = vectors_of_classes(answers, torch.tensor([1, 0]), draws=2, confidence=0.9)
    expected = [[[0.2 / 3, 0.9, 0.1 / 3], [0.025, 0.9, 0.075]], [[0.9, 0.06, 0.04], [0.9, 0.0875, 0.0125]]]
    torch.testing.assert_close(vectors, torch.tensor(expected))
    many = vectors_of_classes(answers, torch.tensor([1]), draws=5, confidence=0.9)
    assert torch.equal(many[0, 3], many[0, 0])
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    assert vectors_of_classes(certain, torch.tensor([0]), 1, 0.9).tolist() == [[[1.0, 0.0, 0.0]]]


# on the planted problem -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("inverse-net")


def test_a_budget_that_ends_among_the_scores_leaves_the_images(toy: Trial) -> None:
    target, found = toy.run(budget=8)
    assert target.ledger.total.queries == 8
    assert len(found) == 4
    assert not any(item.complete for item in found)
    assert all(toy.setting.problem(item.samples) is None for item in found)


@pytest.mark.parametrize("kept", [1, 2])
def test_truncated_answers_tell_less_but_something(kept: int) -> None:
    short = Trial("inverse-net", truncation=kept)
    _, found = short.run()
    assert short.recovered(found) > 0.1


@pytest.mark.parametrize("form", [AnswerForm(top_k=3), AnswerForm(decimals=2), AnswerForm(top_k=1, decimals=1)])
def test_it_works_with_what_an_interface_shows(toy: Trial, form: AnswerForm) -> None:
    runtime, target = toy.runtime, toy.target()
    shown = Target(
        toy.lab.module(toy.setting), access=Access.SCORES, adapter=toy.modality.adapter(toy.dataset.input),
        input_spec=toy.dataset.input, classes=toy.dataset.classes, ledger=target.ledger, runtime=runtime, form=form,
    )  # fmt: skip
    attack = toy.attack()
    found = list(attack.run(shown, toy.cases, toy.prepare(attack, shown), runtime))
    assert all(toy.setting.problem(item.samples) is None for item in found)
    assert toy.recovered(found) > 0.1


def test_a_limit_of_questions_is_kept_and_what_was_answered_is_learnt_from() -> None:
    few = Trial("inverse-net", asked=100)
    target, prepared = few.preparation
    assert prepared is not None
    assert target.ledger.total == Spending(queries=100)
    assert len(prepared.state["answers"]["scores"]) == 100
    assert few.recovered(few.run()[1]) > 0.1


def test_a_budget_that_is_too_small_for_the_questions_is_not_exceeded(toy: Trial) -> None:
    target = toy.target(budget=100)
    with pytest.raises(BudgetExceeded):
        toy.prepare(toy.attack(), target)
    assert target.ledger.total.queries <= 100


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    with pytest.raises(DataError, match="inverse-net needs public images"):
        attack().prepare(toy.target(), None, CPU)
    with pytest.raises(DataError, match="inverse-net was not prepared"):
        list(attack().run(toy.target(), toy.cases, None, CPU))
    with pytest.raises(MiError, match="confidence"):
        attack(confidence=1.0)


def test_it_is_an_attack_with_a_forecast() -> None:
    assert isinstance(attack(), Attack)
    assert isinstance(attack(), HasForecast)
