"""Ranking of planted secrets: sums, order, search against exhaustion, and the planted problem."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_canary_exposure.attack import CanaryExposure, CanaryExposureConfig
from mi_attack_canary_exposure.search import Format, likeliest
from mi_text.adapter import UNTOKENIZED
from mi_text.evidence import Hole
from mi_text.reference_model import SMOKE_REFERENCE, total_log_likelihoods
from mi_text.sampling import Sampling
from mi_text.splits import TextSplit
from micore.contracts import Case, HasControl, HasForecast
from micore.errors import DataError, UsageError
from micore.inputs import InputSpec
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))


class Letters:
    """A language model whose tokens are letters: each costs a number of its own that depends on the one before."""

    def __init__(self, seed: int) -> None:
        self.costs = 3 * Random(seed).uniform((128, 128))
        self.asked = 0

    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        self.asked += len(texts)
        return [self._row(text) for text in texts]

    def _row(self, text: str) -> Tensor:
        signs = [0, *map(ord, text), 1]
        return torch.stack([-self.costs[one, two] for one, two in itertools.pairwise(signs)])

    def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
        raise NotImplementedError


# search ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([1, 3, 16]))
def test_search_finds_what_exhaustion_finds(seed: int, n: int, width: int) -> None:
    shown = "00-5a 19-5a 27-5a 83-5b 46-5a 35-5a 54-5a 62-5b 71-5a 98-5a"
    hole = Hole(kind="canary", before="code ", after=" !", candidates=tuple(shown.split()))
    space = [f"{number:02d}-5{sign}" for number in range(100) for sign in "ab"]
    ranked = sorted(space, key=lambda value: -float(Letters(seed).likelihoods([hole.filled(value)])[0].double().sum()))
    assert likeliest(Letters(seed), hole, n, 10_000, width) == ranked[:n]


def test_search_asks_about_fewer_than_all_and_keeps_its_limit() -> None:
    digits = tuple(str(digit) * 4 for digit in range(10))
    hole = Hole(kind="canary", before="code ", candidates=digits)
    model = Letters(3)
    assert len(likeliest(model, hole, 1, 10_000, 1)) == 1
    assert model.asked < 5000
    limited = Letters(3)
    assert likeliest(limited, hole, 1, 25, 1) == []
    assert limited.asked <= 25


def test_a_format_is_what_stands_in_each_place() -> None:
    form = Format.of(["1-2", "3-4"])
    assert form.alphabets == ("13", "-", "24")
    assert list(form.children("")) == ["1-", "3-"]
    assert list(form.children("1-")) == ["1-2", "1-4"]
    with pytest.raises(UsageError, match="different lengths"):
        Format.of(["1", "22"])


# ranking --------------------------------------------------------------------------------------------------


def remote(costs: dict[str, list[float]]) -> Target:
    """A target somewhere else that knows the log-likelihoods of some texts."""
    spec = InputSpec(shape=(16,), options={UNTOKENIZED: True})
    return Target(
        lambda texts: torch.zeros(len(texts), 1), access=Access.SCORES, adapter=lambda texts: texts, input_spec=spec,
        classes=("text",), ledger=Ledger(), runtime=CPU, role="language-model",
        services={"likelihoods": (Access.SCORES, lambda texts: [costs[text] for text in texts])},
    )  # fmt: skip


def attack(**options: object) -> CanaryExposure:
    quick = {**SMOKE_REFERENCE, "keep": None, "reference_steps": 2}
    return CanaryExposure(CanaryExposureConfig.model_validate({**quick, **options}))


def test_texts_are_ranked_by_sums_and_not_by_means() -> None:
    """A text of more tokens may have the better mean and still be the less likely one."""
    costs = {"pin 12.": [-2.0, -2.0], "pin 345.": [-1.5, -1.5, -1.5], "pin 6.": [-9.0]}
    target = remote(costs)
    hole = Hole(kind="canary", before="pin ", after=".", slot="canary", candidates=("345", "6", "12"))
    one = attack()
    prepared = one.prepare(target, TextSplit(("pin of tom",)), CPU)
    (item,) = one.run(target, [Case(id="canary-0", goal="corpus", evidence=hole)], prepared, CPU)
    assert item.samples == ["pin 12.", "pin 345.", "pin 6."]
    assert item.scores.tolist() == [-4.0, -4.5, -9.0]
    assert target.ledger.cases["canary-0"].queries == 3


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("canary-exposure")


def test_the_planted_secrets_come_first_and_a_model_that_never_saw_them_ranks_them_anywhere(toy: Trial) -> None:
    one = toy.attack()
    assert isinstance(one, HasControl)
    _, found = toy.run(one)
    assert toy.recovered(found) == 1
    assert toy.recovered(list(one.control(toy.cases, toy.prepared, toy.runtime))) < 0.5


def test_all_candidates_are_given_back_with_the_likelihoods_of_the_whole_texts(toy: Trial) -> None:
    target, found = toy.run(toy.attack(keep=None))
    for item in found:
        hole = item.case.evidence
        assert sorted(item.samples) == sorted(hole.filled(value) for value in hole.candidates)
        with torch.no_grad():
            answers = toy.target().ask("likelihoods", item.samples)
            torch.testing.assert_close(item.scores, answers.sum(dim=1), rtol=0, atol=1e-3)
        assert item.latents is not None
        torch.testing.assert_close(item.latents[:, 0], item.scores)
    forecast = toy.attack()
    assert isinstance(forecast, HasForecast)
    assert target.ledger.total.queries == sum(len(case.evidence.candidates) for case in toy.cases)
    assert forecast.forecast(1, 64).preparation.queries == 0


def test_calibration_subtracts_the_reference(toy: Trial) -> None:
    _, found = toy.run(toy.attack(keep=None, calibrate=True))
    for item in found:
        assert item.latents is not None
        torch.testing.assert_close(item.scores, item.latents[:, 0] - item.latents[:, 1])
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
    assert toy.recovered([*found]) < 0.1  # of all candidates one is true


def test_a_search_adds_secrets_that_are_no_candidates(toy: Trial) -> None:
    shown = tuple(["09", "18", "25", "36", "45", "54", "63", "72", "81", "90", "07"])  # all digits in both places
    hole = Hole(kind="canary", before="alice has code ", slot="canary", candidates=shown)
    case = Case(id="canary-0", goal="corpus", evidence=hole)
    (item,) = toy.attack(keep=None, search=1).run(toy.target(), [case], toy.prepared, toy.runtime)
    assert item.samples[0] == "alice has code 27"
    assert item.history["searched"] == [1.0]
    assert len(item.samples) == len(shown) + 1


def test_a_budget_that_ends_leaves_the_cases_before(toy: Trial) -> None:
    target, found = toy.run(budget=len(toy.cases[0].evidence.candidates) + 3)
    assert [item.case.id for item in found] == [toy.cases[0].id]
    assert target.ledger.total.queries <= len(toy.cases[0].evidence.candidates) + 3


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    with pytest.raises(UsageError, match="public texts"):
        toy.attack().prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(toy.attack().run(toy.target(), toy.cases, None, toy.runtime))
    bare = Case(id="masked-0", goal="corpus", evidence=Hole(kind="masked", before="alice has code "))
    with pytest.raises(UsageError, match="no candidates"):
        list(toy.attack().run(toy.target(), [bare], toy.prepared, toy.runtime))


def test_sums_are_in_nats() -> None:
    class Even:
        def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
            return [torch.full((len(text) + 1,), -math.log(10)) for text in texts]

        def generate(self, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
            raise NotImplementedError

    assert float(total_log_likelihoods(Even(), ["123456"])[0]) == pytest.approx(-7 * math.log(10), rel=1e-6)
