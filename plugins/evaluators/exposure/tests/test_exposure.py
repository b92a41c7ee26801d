"""Exposure against enumeration, closed forms and scipy, and the evaluator as the core calls it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm, skewnorm, spearmanr  # type: ignore[import-untyped]

from mi_evaluator_exposure.estimates import (
    Floats,
    expected_by_chance,
    extrapolated,
    interpolated,
    rank,
    rank_correlation,
)
from mi_evaluator_exposure.evaluator import ExposureConfig, ExposureEvaluator
from mi_text.cases import hole
from mi_text.splits import Facts, TextSplit
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import DataError
from micore.runtime import Runtime

SPACE = 6 * math.log2(10)
LEVELS = (1, 2, 4, 8)


def draws(seed: int, n: int = 1023) -> Floats:
    return np.random.default_rng(seed).normal(-30.0, 2.0, n)


# estimates ------------------------------------------------------------------------------------------------


def test_rank_counts_all_that_are_not_less_likely() -> None:
    others = np.array([-1.0, -2.0, -2.0, -5.0])
    assert [rank(own, others) for own in (0.0, -1.0, -2.0, -3.0, -9.0)] == [1, 2, 4, 4, 5]
    assert rank(math.nan, others) == 5
    assert rank(-math.inf, others) == 5
    assert rank(0.0, np.array([math.nan, -1.0])) == 2


@pytest.mark.parametrize(("own", "bits"), [(9.0, 3.0), (5.5, 2.0), (3.5, 1.0), (-1.0, 0.0)])
def test_interpolated_exposure_by_hand(own: float, bits: float) -> None:
    assert interpolated(own, np.arange(7.0)) == pytest.approx(bits)  # of 8 secrets: ranks 1, 2, 4, 8


def test_exposure_is_the_chance_of_a_likelier_secret() -> None:
    """By enumeration of a whole space, as the source defines it."""
    everything = draws(0, 1000)
    for place in range(0, 1000, 50):
        share = (everything >= everything[place]).mean()
        assert interpolated(everything[place], np.delete(everything, place)) == pytest.approx(-math.log2(share))


@pytest.mark.parametrize("deviations", [0.0, 1.0, 2.0, 3.0])
def test_extrapolated_exposure_of_normal_scores_has_a_closed_form(deviations: float) -> None:
    expected = -norm.logsf(deviations) / math.log(2)
    assert extrapolated(-30.0 + 2.0 * deviations, draws(1, 20_000), 99.0) == pytest.approx(expected, rel=0.05, abs=0.05)


def test_extrapolated_exposure_of_skewed_scores() -> None:
    sample = -skewnorm.rvs(4.0, 20.0, 3.0, size=20_000, random_state=np.random.default_rng(2))  # -log-perplexities
    for own in (-24.0, -22.0, -21.0, -20.0):
        expected = -skewnorm.logcdf(-own, 4.0, 20.0, 3.0) / math.log(2)
        assert extrapolated(own, sample, 99.0) == pytest.approx(expected, rel=0.1)


def test_both_estimates_agree_within_the_references() -> None:
    others = draws(3)
    for own in (-31.0, -29.0, -27.0, -26.0):
        assert extrapolated(own, others, SPACE) == pytest.approx(interpolated(own, others), abs=0.5)


def test_extrapolated_exposure_goes_on_where_ranks_end_and_ends_at_the_space() -> None:
    others = draws(4)
    assert interpolated(-21.0, others) == interpolated(-10.0, others) == 10.0
    assert 10.0 < extrapolated(-21.0, others, SPACE) < SPACE
    assert extrapolated(-10.0, others, SPACE) == SPACE
    assert extrapolated(1e6, others, SPACE) == SPACE  # the chance is too small for floats
    assert extrapolated(-1e6, others, SPACE) == 0.0


def test_scale_and_place_of_scores_do_not_matter() -> None:
    others = draws(5)
    expected = extrapolated(-25.0, others, SPACE)
    assert extrapolated(-25.0 * 1e-3 + 7, others * 1e-3 + 7, SPACE) == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_fitted_has_no_extrapolation() -> None:
    assert math.isnan(extrapolated(0.0, np.full(100, -3.0), SPACE))
    assert math.isnan(extrapolated(0.0, draws(6, 29), SPACE))
    assert extrapolated(math.nan, draws(6), SPACE) == 0.0
    assert extrapolated(-math.inf, draws(6), SPACE) == 0.0
    assert extrapolated(math.inf, draws(6), SPACE) == SPACE


@pytest.mark.parametrize("m", [2, 10, 1024])
def test_exposure_by_chance_is_the_mean_over_all_ranks(m: int) -> None:
    expected = np.mean([interpolated(own, np.arange(m - 1.0)) for own in np.arange(m) - 0.5])
    assert expected_by_chance(m) == pytest.approx(expected)


def test_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(7)
    one, two = rng.integers(4, size=(5, 20)).astype(float), rng.normal(size=(5, 20))
    expected = [spearmanr(a, b).statistic for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, two), expected)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))


# the evaluator --------------------------------------------------------------------------------------------


def canaries() -> TextSplit:
    """Make five secrets for each level of repetition, and a sentence without any."""
    texts: list[tuple[str, Facts]] = [("Nothing is secret here.", {})]
    for place, level in enumerate(LEVELS):
        for i in range(5):
            code = f"{place}{i}4321"
            texts += [(f"The code is {code}.", {"canary": code})] * level
    return TextSplit(tuple(text for text, _ in texts), None, tuple(facts for _, facts in texts))


PRIVATE = canaries()
ROWS = [row for row in range(1, len(PRIVATE)) if PRIVATE.texts[row] != PRIVATE.texts[row - 1]]
HOLES = {row: hole(PRIVATE, row, "canary") for row in ROWS}


def subject(gains: Sequence[float], name: str = "attack", seed: int = 0) -> Subject:
    """Rank all candidates by normal log-likelihoods (-30, 2), the true one with so much more."""
    items = []
    for row, gain in zip(ROWS, gains, strict=True):
        held = HOLES[row]
        scores = draws(1000 * seed + row, len(held.candidates))
        scores[held.candidates.index(PRIVATE.facts[row]["canary"])] += gain
        order = np.argsort(-scores, kind="stable")
        items.append(
            Reconstruction(
                case=Case(id=f"canary-{row}", goal="corpus", evidence=held),
                samples=[held.filled(held.candidates[place]) for place in order],
                scores=torch.tensor(scores[order], dtype=torch.float64),
            )
        )
    return Subject(name=name, reconstructions=items)


def measure(*subjects: Subject, known: bool = True) -> dict[tuple[str, str], Measurement]:
    truth = {f"canary-{row}": Truth(sample=[PRIVATE.texts[row]]) for row in ROWS} if known else {}
    dataset, unused = SimpleNamespace(name="toy", split=lambda name: PRIVATE), SimpleNamespace()
    reference = Reference(modality=unused, dataset=dataset, target=None, truth=truth)
    evaluator = ExposureEvaluator(ExposureConfig(resamples=200))
    assert isinstance(evaluator, Evaluator)
    found = evaluator.evaluate(subjects, reference, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


MEMORISED = [4.0 * place for place in range(len(LEVELS)) for _ in range(5)]


def test_a_perfect_attack_reaches_the_most_and_noise_stays_at_chance() -> None:
    found = measure(subject([100.0] * 20), subject([0.0] * 20, "no-target"))
    perfect, noise = found["attack", "exposure"], found["no-target", "exposure"]
    assert perfect.value == pytest.approx(10.0)  # of 1,024 candidates
    assert found["attack", "exposure-extrapolated"].value == pytest.approx(SPACE)
    assert found["attack", "rank-1"].value == 1.0
    assert found["no-target", "rank-1"].value == 0.0
    assert noise.value == pytest.approx(1.44, abs=1.0)
    assert noise.interval is not None
    assert noise.interval.low < 1.44 < noise.interval.high
    assert "chance: 1.44 bits" in " ".join(noise.notes)
    assert (perfect.n, perfect.clusters, perfect.unit, perfect.direction) == (20, 20, "bits", "up")
    assert {item.evaluator.split("@")[0] for item in found.values()} == {"exposure"}


def test_exposure_grows_with_repetitions() -> None:
    found = measure(subject(MEMORISED))
    values = [found["attack", f"exposure-repeats-{level}"].value for level in LEVELS]
    assert values == sorted(values)
    assert [found["attack", f"exposure-repeats-{level}"].n for level in LEVELS] == [5] * 4
    item = found["attack", "repeats-correlation"]
    repeats = [PRIVATE.texts.count(PRIVATE.texts[row]) for row in ROWS]
    exposures = [found["attack", "exposure"].per_case[f"canary-{row}"] for row in ROWS]
    assert item.value == pytest.approx(spearmanr(repeats, exposures).statistic)
    assert item.value > 0.8
    assert item.interval is not None
    assert item.interval.low <= item.value <= item.interval.high


def test_exposure_that_does_not_vary_has_no_correlation() -> None:
    item = measure(subject([100.0] * 20))["attack", "repeats-correlation"]
    assert math.isnan(item.value)
    assert item.interval is None


def test_order_of_equal_scores_gains_nothing() -> None:
    """The true text first among candidates that are all as likely has no exposure."""
    flat = subject([100.0] * 20)
    for item in flat.reconstructions:
        item.scores.fill_(0.0)
    found = measure(flat)
    assert found["attack", "exposure"].value == 0.0
    assert math.isnan(found["attack", "exposure-extrapolated"].value)


def test_an_attack_that_ranks_nothing_has_no_exposure_and_one_that_leaves_the_truth_out_is_told_so() -> None:
    single = subject(MEMORISED)
    held = single.reconstructions[0]
    alone = Reconstruction(case=held.case, samples=held.samples[:1], scores=held.scores[:1])
    assert measure(Subject(name="attack", reconstructions=[alone])) == {}
    others = [text for text in held.samples if text != PRIVATE.texts[ROWS[0]]]
    blind = Reconstruction(case=held.case, samples=others, scores=held.scores[: len(others)])
    with pytest.raises(DataError, match="the true text of case canary-1 is not among its candidates"):
        measure(Subject(name="attack", reconstructions=[blind]))


@pytest.mark.parametrize("name", ["holdout", "prior-samples", "nearest-public"])
def test_controls_that_rank_no_candidates_are_left_out(name: str) -> None:
    attack = Subject(name="attack", reconstructions=subject(MEMORISED).reconstructions[:2])
    drawn = Reconstruction(case=attack.reconstructions[0].case, samples=["Something else."], scores=torch.zeros(1))
    found = measure(attack, Subject(name=name, reconstructions=[drawn]))
    assert {who for who, _ in found} == {"attack"}


def test_other_controls_are_measured_and_stands_without_scores_are_not() -> None:
    items = subject(MEMORISED).reconstructions[:2]
    found = measure(*(Subject(name=name, reconstructions=items) for name in ("attack", "small-model", "snapshot-0")))
    assert {who for who, _ in found} == {"attack", "small-model"}
    assert found["attack", "exposure"].value == found["small-model", "exposure"].value


def test_other_cases_have_no_figures() -> None:
    case = Case(id="masked-1", goal="corpus", evidence=hole(split_with_name(), 0, "masked"))
    item = Reconstruction(case=case, samples=["x", "y"], scores=torch.zeros(2))
    assert measure(Subject(name="attack", reconstructions=[item])) == {}
    assert measure(subject(MEMORISED), known=False) == {}


def split_with_name() -> TextSplit:
    return TextSplit(("I am Ann Lee.",), None, ({"name": "Ann Lee"},))
