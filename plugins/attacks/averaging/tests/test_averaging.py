"""Averaging: it undoes noise that is drawn anew and no other, and everything that it asks is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mi_attack_averaging.repeated import Repeats, majority
from micore.attacks import preparer
from micore.contracts import Defense, HasPrior
from micore.errors import AccessDenied, BudgetExceeded, ConfigError
from micore.inputs import InputSpec
from micore.kit.keyed_noise import KeyedNoise, gaussian
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Ledger, Spending

RUNTIME = Runtime(device=torch.device("cpu"))
SPREAD, N, CLASSES = 0.1, 256, 3


class Naive(Defense):
    """Adds noise that is new with every query."""

    def __init__(self) -> None:
        self.stream = torch.Generator().manual_seed(5)

    def adapt_output(self, scores: Tensor, inputs: Tensor) -> Tensor:
        return scores + SPREAD * torch.randn(scores.shape, generator=self.stream)


class Keyed(Defense):
    """Adds noise that the query and a secret fix."""

    def __init__(self) -> None:
        self.noise = KeyedNoise()
        self.noise.load_state({"key": torch.tensor([12345])})

    def adapt_output(self, scores: Tensor, inputs: Tensor) -> Tensor:
        return scores + SPREAD * gaussian(self.noise.uniforms(inputs, scores, scores.shape[1]))


def make(*defenses: Defense, access: Access = Access.SCORES) -> Target:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    return Target(
        network, access=access, adapter=lambda samples: samples, input_spec=InputSpec(shape=(1, 8, 8)),
        classes=["x", "y", "z"], ledger=Ledger(), runtime=RUNTIME, output_defenses=defenses,
    )  # fmt: skip


def samples() -> Tensor:
    return torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def error(target: Target, repeats: int, jitter: float = 0.0) -> float:
    """Root mean square of what is left of the noise."""
    asked = Repeats(repeats=repeats, jitter=jitter, runtime=RUNTIME).mean_scores(target.scores)
    difference = asked(samples()) - make().scores(samples())
    return float(difference.double().square().mean().sqrt())


# what it can do and what it cannot -----------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 4, 16, 64])
def test_new_noise_falls_with_the_square_root_of_the_repeats(repeats: int) -> None:
    assert error(make(Naive()), repeats) == pytest.approx(SPREAD / repeats**0.5, rel=0.15)


@pytest.mark.parametrize("repeats", [1, 16, 64])
def test_keyed_noise_does_not_fall(repeats: int) -> None:
    assert error(make(Keyed()), repeats) == pytest.approx(SPREAD, rel=0.15)


def test_samples_that_move_enough_draw_keyed_noise_anew() -> None:
    """The key tells blocks of pixels apart by 1/255: a move by more gives other noise, and an error of its own."""
    alone = error(make(), 64, jitter=0.02)
    assert alone < 0.02
    assert error(make(Keyed()), 64, jitter=0.02) < SPREAD / 8 + alone + 0.01


def test_noisy_labels_become_right() -> None:
    target, right = make(Naive()), make().labels(samples())
    votes = Repeats(repeats=51, jitter=0.0, runtime=RUNTIME).majority_labels(target.labels, CLASSES)(samples())
    once = (target.labels(samples()) == right).double().mean()
    assert once < 0.9
    assert (votes == right).double().mean() > once + 0.06


def test_the_first_answer_is_to_the_sample_itself_and_the_others_stay_in_range() -> None:
    seen: list[Tensor] = []

    def ask(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch.flatten(1)[:, :2]

    Repeats(repeats=3, jitter=0.3, runtime=RUNTIME).mean_scores(ask)(samples())
    assert torch.equal(seen[0], samples())
    assert all(float(batch.min()) >= 0 and float(batch.max()) <= 1 for batch in seen)
    moved = [(batch - samples()) for batch in seen]
    inside = (samples() > 0.45) & (samples() < 0.55)
    for first, second in ((1, 2), (1, 0)):
        assert not torch.allclose(moved[first][inside], moved[second][inside])
    Repeats(repeats=3, jitter=0.3, runtime=RUNTIME).mean_scores(ask)(samples()[7:8])
    assert torch.equal(seen[4][0], seen[1][7])  # whatever stands beside it


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=9))
def test_majority_is_the_most_frequent_label(answers: Sequence[Sequence[int]]) -> None:
    found = majority(torch.tensor(answers), 4).tolist()
    for column, label in zip(zip(*answers, strict=True), found, strict=True):
        votes = Counter(column)
        most = {name for name, count in votes.items() if count == max(votes.values())}
        assert label == (column[0] if column[0] in most else min(most))


# what it costs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("averaging", base="inverse-net")


def test_it_spends_what_it_forecasts(toy: Trial) -> None:
    attack, (prepared_on, _) = toy.attack(), toy.preparation
    forecast = attack.forecast(len(toy.cases), len(toy.dataset.split("public")))
    alone = attack.wrapped().forecast(len(toy.cases), len(toy.dataset.split("public")))
    target, found = toy.run(attack)
    assert forecast.preparation == prepared_on.ledger.total == Spending(3 * alone.preparation.queries)
    assert target.ledger.cases == {case.id: forecast.per_case for case in toy.cases}
    assert forecast.per_case.queries == 3 * alone.per_case.queries > 0
    assert len(found) == len(toy.cases)


def test_asked_once_or_without_noise_it_is_the_base_attack(toy: Trial) -> None:
    attack = toy.attack(repeats=1)
    _, found = toy.run(attack)
    _, base = toy.run(attack.wrapped())
    _, thrice = toy.run(toy.attack())
    for mine, other, again in zip(found, base, thrice, strict=True):
        assert torch.equal(mine.samples, other.samples)
        torch.testing.assert_close(again.samples, other.samples)


def test_a_budget_holds(toy: Trial) -> None:
    target = toy.target(100)
    with pytest.raises(BudgetExceeded):
        toy.prepare(toy.attack(), target)
    assert target.ledger.total.queries <= 100


def test_earlier_stands_tell_what_they_had_really_cost() -> None:
    """Of a base with a curve over queries: its last stand cannot have cost more than the case."""
    trial = Trial("averaging", base="brep-mi")
    _, once = trial.run(trial.attack(repeats=1))
    target, thrice = trial.run(trial.attack())
    for one, three in zip(once, thrice, strict=True):
        assert [3 * stand.queries for stand in one.snapshots] == [stand.queries for stand in three.snapshots]
        assert three.snapshots
        assert three.snapshots[-1].queries <= target.ledger.cases[three.case.id].queries


def test_access_stays_what_the_run_grants(toy: Trial) -> None:
    with pytest.raises(AccessDenied):
        toy.prepare(toy.attack(), toy.target(access=Access.LABEL))
    labels = Trial("averaging-label")
    assert labels.preparation[0].ledger.used_access == Access.LABEL


def test_what_fits_is_wrapped_and_offers_what_it_has(toy: Trial) -> None:
    with pytest.raises(ConfigError, match="cannot wrap 'gmi': white-box access"):
        toy.attack(base="gmi")
    with pytest.raises(ConfigError, match="cannot wrap 'rlb-mi': scores access"):
        Trial("averaging-label").attack(base="rlb-mi")
    assert not isinstance(toy.attack(), HasPrior)
    assert isinstance(toy.attack(base="rlb-mi"), HasPrior)
    entry, attack = preparer(toy.registry, toy.entry, toy.attack())
    assert entry.spec.name == "averaging"
    assert "repeats" in attack.PREPARE_FIELDS
