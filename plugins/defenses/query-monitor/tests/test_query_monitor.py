"""The signals against other implementations, the rate of false alarms, and what an attack looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from torch import Tensor, nn

from mi_defense_query_monitor.calibration import (
    benign_signals,
    reference_of,
    share_with_near_predecessor,
    window_sizes,
)
from mi_defense_query_monitor.defense import QueryMonitor, QueryMonitorConfig, at_least
from mi_defense_query_monitor.signals import (
    SIGNALS,
    ascent,
    concentration,
    described,
    has_near_predecessor,
    shift,
    vectors_of,
)
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ConfigError, ModelError
from micore.runtime import Random, Runtime

CPU = Runtime(device=torch.device("cpu"))
CLASSES, SIZE = 8, 12
WINDOW = 200


def monitor(**options: object) -> QueryMonitor:
    return QueryMonitor(make_config(QueryMonitorConfig, {"window": WINDOW, **options}, "query-monitor"))


# signals --------------------------------------------------------------------------------------------------

values_with_ties = arrays.arrays(np.float32, st.tuples(st.just(3), st.integers(2, 30)), elements=st.integers(0, 6))


@settings(max_examples=50, deadline=None)
@given(values_with_ties)
def test_the_ascent_is_spearmans_correlation(values: np.ndarray[Any, Any]) -> None:
    found = ascent(torch.tensor(values)).numpy()
    for row, value in zip(values, found, strict=True):
        constant = len(set(row.tolist())) == 1
        expected = 0.0 if constant else stats.spearmanr(np.arange(len(row)), row).statistic
        assert value == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(values_with_ties, arrays.arrays(np.float32, st.integers(1, 20), elements=st.integers(0, 6)))
def test_the_shift_is_the_two_sample_statistic_of_kolmogorov_and_smirnov(
    values: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]
) -> None:
    found = shift(torch.tensor(values), torch.tensor(np.sort(reference)))
    expected = [stats.ks_2samp(row, reference, method="asymp").statistic for row in values]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_concentration_is_the_largest_excess_of_a_share() -> None:
    labels = torch.tensor([[0, 0, 0, 1], [1, 2, 1, 2]])
    shares = torch.tensor([0.6, 0.2, 0.2], dtype=torch.float64)
    assert concentration(labels, shares).tolist() == pytest.approx([0.15, 0.3])


def test_an_answer_is_described_by_label_top_score_and_entropy() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(5), size=20)
    found = described(torch.tensor(scores)).double().numpy()
    expected = np.stack([scores.argmax(axis=1), scores.max(axis=1), stats.entropy(scores, axis=1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert described(torch.tensor([[1.0, 0.0]])).tolist() == [[0.0, 1.0, 0.0]]


def test_near_predecessors_are_found_in_both_batches() -> None:
    earlier, new = torch.tensor([[0.0], [10.0]]), torch.tensor([[5.0], [10.5], [5.5], [20.0]])
    assert has_near_predecessor(new, earlier, 0.5).tolist() == [False, True, True, False]
    assert has_near_predecessor(new, earlier[:0], 0.5).tolist() == [False, False, True, False]


def test_the_share_of_drawn_rows_with_a_near_predecessor_is_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.rand(6, 6, generator=generator) < 0.3
    near = (near | near.t()).fill_diagonal_(False)
    drawn = torch.randint(6, (20, 15), generator=generator)
    expected = [
        sum(any(near[row[place], earlier] for earlier in row[:place]) for place in range(15)) / 15 for row in drawn
    ]
    assert share_with_near_predecessor(drawn, near.nonzero().t(), 6).tolist() == pytest.approx(expected)


def test_tensors_become_vectors_and_other_samples_do_not() -> None:
    assert vectors_of(torch.rand(3, 2, 32, 5)).shape == (3, 2 * 8 * 5)  # type: ignore[union-attr]
    assert vectors_of(torch.rand(3, 16_000)).shape == (3, 256)  # type: ignore[union-attr]
    assert vectors_of(["a", "b"]) is None
    assert vectors_of(torch.zeros(3, 7, dtype=torch.int64)) is None


@pytest.mark.parametrize(("k", "n", "rate"), [(0, 5, 0.01), (1, 1, 0.01), (2, 40, 0.05), (7, 300, 0.01)])
def test_the_chance_is_the_binomial_tail(k: int, n: int, rate: float) -> None:
    assert at_least(k, n, rate) == pytest.approx(stats.binom.sf(k - 1, n, rate), rel=1e-8, abs=1e-12)


def test_windows_are_halved_and_never_larger_than_the_reference() -> None:
    assert window_sizes(1000, 2000) == [1000, 500, 250, 125, 62]
    assert window_sizes(1000, 90) == [90, 45]
    assert window_sizes(64, 20) == [20]


# streams --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    samples: Any
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Any) -> Any:
        return self.samples[indices]


CENTRES = torch.randn(CLASSES, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def benign(n: int, seed: int) -> Tensor:
    """Draw samples around the classes' centres, some classes more often than others."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.arange(1.0, CLASSES + 1)
    labels = torch.multinomial(weights, n, replacement=True, generator=generator)
    return CENTRES[labels] + torch.randn(n, 1, SIZE, SIZE, generator=generator)


def answer(samples: Tensor) -> Tensor:
    return (samples.flatten(1) @ CENTRES.flatten(1).t() / 12).softmax(dim=1)


def fitting(split: Points, **changes: Any) -> Fitting:
    plain = Fitting(
        module=nn.Identity(), reference=split, reference_is_fresh=True, public=None, n_classes=CLASSES,
        adapter=lambda samples: samples, answer=answer, runtime=CPU,
    )  # fmt: skip
    return replace(plain, **changes)


@cache
def state(n: int = 400) -> dict[str, Tensor]:
    fitted = monitor()
    fitted.fit(fitting(Points(benign(n, 0))))
    return dict(fitted.state())


def watching(n: int = 400) -> QueryMonitor:
    loaded = monitor()
    loaded.load_state(state(n))
    return loaded


def shown(watcher: QueryMonitor, stream: Tensor, batch: int = 32) -> dict[str, Any]:
    for part in stream.split(batch):
        watcher.observe(answer(part), part)
    return dict(watcher.findings())


def hill_climb(n: int, seed: int) -> Tensor:
    """Draw a walk that moves a little at a time from noise towards one class."""
    generator = torch.Generator().manual_seed(seed)
    progress = torch.linspace(0, 1.5, n)[:, None, None, None]
    return progress * CENTRES[2] + 0.1 * torch.randn(n, 1, SIZE, SIZE, generator=generator)


def population(n: int, seed: int) -> Tensor:
    """Draw generations of a search: each narrower, and nearer to one class."""
    generator = torch.Generator().manual_seed(seed)
    width = torch.linspace(1.0, 0.3, n)[:, None, None, None]
    return CENTRES[5] * (1.2 - width) + width * torch.randn(n, 1, SIZE, SIZE, generator=generator)


@pytest.mark.parametrize("n_reference", [400, 120])
def test_fresh_benign_windows_are_flagged_about_as_often_as_was_asked_for(n_reference: int) -> None:
    """The rate is an average over references; of one of 120 samples it may be a few times the asked one."""
    watcher = watching(n_reference)
    found = shown(watcher, benign(400 * watcher._calibrated().window, 1), 500)
    assert found["windows"] == 400
    assert found["windows_flagged"] <= 16  # asked: 4


def test_the_rate_holds_on_average_over_references() -> None:
    flagged = 0
    for seed in range(20):
        watcher = monitor(window=64, replicates=500, false_positives=0.02)
        watcher.fit(fitting(Points(benign(150, 100 + seed)), runtime=replace(CPU, seed=seed)))
        flagged += shown(watcher, benign(64 * 30, 200 + seed), 640)["windows_flagged"]
    assert 1 <= flagged <= 24  # of 600 windows; asked: 12


@pytest.mark.parametrize("attack", [hill_climb, population])
def test_a_search_is_flagged_within_a_window(attack: Any) -> None:
    found = shown(watching(), torch.cat([benign(2 * WINDOW, 5), attack(2 * WINDOW, 6)]))
    assert found["flagged"] is True
    assert found["first_flag"] == 3 * WINDOW
    assert (found["windows"], found["windows_flagged"]) == (4, 2)
    assert found["signals"]["concentration"] == 2
    assert found["chance"] < 0.01


def test_each_signal_has_its_own_mark() -> None:
    near = shown(watching(), benign(20, 7).repeat(10, 1, 1, 1) + 1e-3)
    assert near["signals"]["self_similarity"] == 1
    samples = benign(WINDOW, 8)
    rising = samples[answer(samples).amax(dim=1).argsort()]
    assert shown(watching(), rising)["signals"] == {name: int(name == "ascent") for name in SIGNALS}
    sure = shown(watching(), 3 * benign(WINDOW, 9))
    assert sure["signals"]["shift"] == 1


def test_a_stream_that_does_not_fill_a_window_is_judged_by_a_smaller_one() -> None:
    found = shown(watching(), hill_climb(70, 1))
    assert (found["queries"], found["windows"], found["first_flag"]) == (70, 1, 50)
    assert shown(watching(), hill_climb(49, 1))["windows"] == 0  # the smallest is 50


def test_findings_do_not_depend_on_the_batches_and_may_be_asked_at_any_time() -> None:
    stream = torch.cat([benign(WINDOW, 2), hill_climb(WINDOW + 60, 3)])
    asked = watching()
    for part in stream.split(130):
        asked.observe(answer(part), part)
        asked.findings()
    whole = shown(watching(), stream, len(stream))
    assert dict(asked.findings()) == whole == shown(watching(), stream, 7)
    assert json.loads(json.dumps(whole)) == whole


def test_memory_is_bounded() -> None:
    watcher = watching()
    shown(watcher, benign(5 * WINDOW + 30, 4))
    assert watcher._block.filled == 30


def test_no_query_is_no_finding() -> None:
    found = watching().findings()
    assert (found["queries"], found["windows"], found["flagged"], found["chance"]) == (0, 0, False, 1.0)


# what is kept ---------------------------------------------------------------------------------------------


def test_a_loaded_monitor_judges_as_the_fitted_one_and_begins_anew() -> None:
    fitted, stream = monitor(), hill_climb(WINDOW, 3)
    fitted.fit(fitting(Points(benign(400, 0))))
    first = shown(fitted, stream)
    assert first == shown(watching(), stream)
    fitted.load_state(fitted.state())
    assert shown(fitted, stream) == first


def test_the_facts_are_json() -> None:
    fitted = monitor()
    fitted.fit(fitting(Points(benign(100, 0)), reference_is_fresh=False))
    facts = fitted.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["reference_is_fresh"] is False
    assert facts["window_sizes"] == [100, 50]
    assert facts["near_distance"] > 0


def test_samples_that_are_no_tensors_are_watched_by_their_answers() -> None:
    class Sentences(Points):
        def take(self, indices: Any) -> list[int]:
            return [int(index) for index in indices]

    samples = benign(300, 0)
    watcher = monitor()
    watcher.fit(fitting(Sentences(samples), answer=lambda rows: answer(samples[rows])))
    assert watcher.facts()["near_distance"] is None
    climb = hill_climb(WINDOW, 1)
    watcher.observe(answer(climb), ["same"] * WINDOW)
    found = watcher.findings()
    assert found["flagged"]
    assert found["signals"]["self_similarity"] == 0


def test_the_threshold_is_a_quantile_of_benign_windows() -> None:
    samples = benign(300, 0)
    reference = reference_of(described(answer(samples)), vectors_of(samples), CLASSES)
    found = benign_signals(reference, 100, 700, Random(1))
    assert found.shape == (700, len(SIGNALS))
    assert float(found[:, 2].std()) == pytest.approx(1 / 99**0.5, rel=0.1)  # of Spearman's correlation by chance
    assert 0 < float(found[:, 1].mean()) < 0.05  # of the nearest of each sample one in a hundred is near


# bad input ------------------------------------------------------------------------------------------------


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ModelError, match="too few"):
        monitor().fit(fitting(Points(benign(9, 0))))


def test_a_monitor_that_was_not_fitted_does_not_watch() -> None:
    with pytest.raises(ModelError, match="not fitted"):
        monitor().observe(torch.ones(1, 2) / 2, torch.zeros(1, 2))


@pytest.mark.parametrize("change", [{"means": torch.zeros(1, 2)}, {"more": torch.zeros(1)}, None])
def test_a_foreign_state_is_refused(change: dict[str, Tensor] | None) -> None:
    with pytest.raises(ModelError, match="not its own"):
        monitor().load_state({} if change is None else {**state(), **change})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"window": 31}, "window"), ({"false_positives": 0.5}, "false_positives"), ({"replicates": 99}, "replicates"),
        ({"false_positives": 0.001}, "at least 5000"),
    ],
)  # fmt: skip
def test_configs_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        monitor(**options)
