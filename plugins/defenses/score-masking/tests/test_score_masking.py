"""Each masking against an independent formula, what it promises to keep, and what averaging makes of the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from torch import Tensor

from mi_defense_score_masking.noise import OrderNoise, OutputNoise, ranges, truncated_laplace
from mi_defense_score_masking.shaping import ReverseSigmoid, Temperature, deception
from mi_defense_score_masking.simplex import ScoreMask, normalised, with_the_label_of
from mi_defense_score_masking.truncation import LabelOnly, RoundScores, TopK
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.errors import ConfigError, ModelError
from micore.kit.training import accuracy
from micore.runtime import Runtime
from micore.testing.counting import differences, global_streams
from micore.testing.lab import restored, train_toy
from micore.utility import answers

MASKS: tuple[type[ScoreMask], ...] = (
    RoundScores, TopK, LabelOnly, Temperature, OutputNoise, ReverseSigmoid, OrderNoise,
)  # fmt: skip
NOISY = (OutputNoise, OrderNoise)


def mask(kind: type[ScoreMask], seed: int = 7, **options: object) -> Any:
    made: Any = kind(make_config(kind.Config, options, kind.__name__))
    if issubclass(kind, NOISY):
        made.load_state({"key": torch.tensor([seed])})
    return made


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def simplex(n: int, k: int, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(n, k, generator=generator)).softmax(dim=1)


# formulas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "step"), [({"decimals": 1}, 0.1), ({"decimals": 3}, 0.001), ({"step": 0.05}, 0.05)]
)
def test_rounding_is_that_of_numpy(options: dict[str, object], step: float) -> None:
    scores = simplex(50, 6)
    expected = step * np.round(scores.double().numpy() / step)
    found = mask(RoundScores, renormalise=False, **options).adapt_output(scores, pictures(50))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    found = mask(RoundScores, **options).adapt_output(scores, pictures(50))
    np.testing.assert_allclose(found.numpy(), expected / expected.sum(axis=1, keepdims=True), atol=2e-6)


def test_equal_scores_after_rounding_keep_the_label() -> None:
    scores = torch.tensor([[0.331, 0.334, 0.335], [0.34, 0.331, 0.329], [0.2, 0.41, 0.39]])
    found = mask(RoundScores, step=0.1).adapt_output(scores, pictures(3))
    assert found.argmax(dim=1).tolist() == [2, 0, 1]
    torch.testing.assert_close(found[0], torch.full((3,), 1 / 3), atol=1e-6, rtol=0)
    assert found[0, 0] == found[0, 1]  # nothing else is told


def test_a_row_with_nothing_left_becomes_the_label() -> None:
    scores = torch.full((1, 400), 1 / 400)
    scores[0, 17] += 1e-4
    found = mask(RoundScores, decimals=1).adapt_output(scores, pictures(1))
    assert found[0].nonzero().flatten().tolist() == [17]
    assert float(found.sum()) == 1
    bare = mask(RoundScores, decimals=1, renormalise=False).adapt_output(scores, pictures(1))
    assert int(bare.argmax()) == 17
    assert float(bare.sum()) < 1e-30


@pytest.mark.parametrize("k", [1, 3, 5, 50])
def test_the_largest_scores_are_kept(k: int) -> None:
    scores = simplex(40, 8)
    found = mask(TopK, k=k, renormalise=False).adapt_output(scores, pictures(40)).numpy()
    exact = scores.numpy()
    limits = np.sort(exact, axis=1)[:, -min(k, 8)][:, None]
    np.testing.assert_allclose(found, np.where(exact >= limits, exact, 0), rtol=1e-6)
    whole = mask(TopK, k=k).adapt_output(scores, pictures(40)).numpy()
    np.testing.assert_allclose(whole, found / found.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_cutoff_keeps_what_reaches_it_and_always_the_largest() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.25, 0.6, 0.15]])
    bare = mask(TopK, k=None, cutoff=0.25, renormalise=False).adapt_output(scores, pictures(3))
    torch.testing.assert_close(bare, torch.tensor([[0.5, 0.3, 0], [0.34, 0.33, 0.33], [0.25, 0.6, 0]]))
    high = mask(TopK, k=None, cutoff=0.9).adapt_output(scores, pictures(3))
    assert torch.equal(high, mask(LabelOnly).adapt_output(scores, pictures(3)))
    both = mask(TopK, k=2, cutoff=0.25, renormalise=False).adapt_output(scores, pictures(3))
    assert (both > 0).sum(dim=1).tolist() == [2, 2, 2]


def test_only_the_label_of_each_row_is_told() -> None:
    """Two rows of different labels: setting the columns of a whole batch would show here."""
    found = mask(LabelOnly).adapt_output(torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]), pictures(2))
    assert found.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0, 50.0])
def test_a_temperature_divides_the_logits(temperature: float) -> None:
    logits = 4 * np.random.default_rng(0).normal(size=(30, 9))
    tempered = np.exp(logits / temperature)
    found = mask(Temperature, temperature=temperature).adapt_output(torch.tensor(logits).softmax(dim=1), pictures(30))
    np.testing.assert_allclose(found.numpy(), tempered / tempered.sum(axis=1, keepdims=True), atol=1e-9)


def test_a_temperature_is_undone_by_its_power() -> None:
    """What it is worth by itself against an adversary who knows it."""
    scores = simplex(30, 9)
    masked = mask(Temperature, temperature=8.0).adapt_output(scores, pictures(30)).double()
    undone = masked**8 / (masked**8).sum(dim=1, keepdim=True)
    torch.testing.assert_close(undone.float(), scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 0.1), (0.5, 0.4), (2.0, 1.0)])
def test_the_reverse_sigmoid_is_its_formula(beta: float, gamma: float) -> None:
    exact = np.concatenate([simplex(30, 5).double().numpy(), [[1.0, 0, 0, 0, 0]]])
    clipped = np.clip(exact, 1e-9, 1 - 1e-9)
    taken = beta * (1 / (1 + np.exp(-gamma * np.log(clipped / (1 - clipped)))) - 0.5)
    expected = np.clip(exact - taken, 0, 1)
    expected /= expected.sum(axis=1, keepdims=True)
    bent = mask(ReverseSigmoid, beta=beta, gamma=gamma, keep_label=False)
    for precision, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-6)):
        scores = torch.tensor(exact, dtype=precision)
        np.testing.assert_allclose(deception(scores, beta, gamma).numpy(), taken, atol=10 * tolerance)
        np.testing.assert_allclose(bent.adapt_output(scores, pictures(31)).numpy(), expected, atol=tolerance)


def test_the_reverse_sigmoid_moves_labels_unless_they_are_kept() -> None:
    scores = torch.tensor([[0.3, 0.25, 0.25, 0.2 - 1e-9, 1e-9]])
    assert int(mask(ReverseSigmoid, keep_label=False).adapt_output(scores, pictures(1)).argmax()) == 4
    assert int(mask(ReverseSigmoid).adapt_output(scores, pictures(1)).argmax()) == 0


def test_another_class_that_is_ahead_changes_places_with_the_label() -> None:
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]])
    masked = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    found = with_the_label_of(scores, masked)
    assert found[0].tolist() == masked[0, [1, 0, 2]].tolist()
    assert found[1, 0] > found[1, 1]
    torch.testing.assert_close(found[1], masked[1], atol=1e-6, rtol=0)


# what each keeps ------------------------------------------------------------------------------------------

rows = hnp.arrays(np.float32, (4, 7), elements=st.floats(-40, 40, width=32)).map(
    lambda logits: torch.from_numpy(logits).softmax(dim=1)
)
bare_rows = st.sampled_from(
    [torch.eye(7)[:4], torch.full((4, 7), 1 / 7), torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 0]] * 4)]
)


@pytest.mark.parametrize("kind", MASKS)
@settings(max_examples=40, deadline=None)
@given(scores=rows | bare_rows)
def test_answers_are_probabilities_and_keep_what_is_promised(kind: type[ScoreMask], scores: Tensor) -> None:
    kept = scores.clone()
    found = mask(kind).adapt_output(scores, pictures(4))
    assert torch.equal(scores, kept)
    assert bool(torch.isfinite(found).all())
    assert float(found.min()) >= 0
    assert float((found.sum(dim=1) - 1).abs().max()) < 1e-5
    if kind.argmax_preserving:
        assert torch.equal(found.argmax(dim=1), scores.argmax(dim=1))
    if kind.order_preserving:
        assert _in_order(scores, found)


def _in_order(scores: Tensor, masked: Tensor) -> bool:
    """Tell whether no pair of scores changed places, up to the step that keeps the label."""
    above = scores[:, :, None] > scores[:, None, :]
    turned = masked[:, :, None] < masked[:, None, :] * (1 - 1e-6)
    return not bool((above & turned).any())


@pytest.mark.parametrize("kind", MASKS)
def test_half_precision_and_float64_are_taken(kind: type[ScoreMask]) -> None:
    scores = simplex(5, 6)
    for precision in (torch.float16, torch.float64):
        found = mask(kind).adapt_output(scores.to(precision), pictures(5))
        assert float((found.double().sum(dim=1) - 1).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", MASKS)
def test_only_those_that_say_so_draw_and_give_gradients(kind: type[ScoreMask]) -> None:
    scores = simplex(6, 5, sharpness=1.0).requires_grad_()
    found = mask(kind).adapt_output(scores, pictures(6))
    if kind.differentiable:
        found.pow(2).sum().backward()  # type: ignore[no-untyped-call]
        assert scores.grad is not None
        assert bool(torch.isfinite(scores.grad).all())
        assert float(scores.grad.abs().max()) > 1e-3
    elsewhere = mask(kind).adapt_output(scores.detach(), pictures(6, seed=1))
    assert torch.equal(found.detach(), elsewhere) != kind.stochastic


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (RoundScores, {"decimals": 0}, "decimals"),
        (RoundScores, {"step": 0}, "step"),
        (TopK, {"k": 0}, "k"),
        (TopK, {"k": None}, "give k, cutoff or both"),
        (Temperature, {"temperature": 0}, "temperature"),
        (OutputNoise, {"scale": -1}, "scale"),
        (OutputNoise, {"noise": "uniform"}, "noise"),
        (ReverseSigmoid, {"beta": 0}, "beta"),
        (OrderNoise, {"epsilon": 0}, "epsilon"),
        (OrderNoise, {"levels": 1}, "levels"),
    ],
)
def test_unsuited_settings_are_refused(kind: type[ScoreMask], options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        mask(kind, **options)


# noise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NOISY)
def test_identical_samples_get_identical_noise_and_averaging_does_not_help(kind: type[ScoreMask]) -> None:
    score, repeats = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), 1000
    picture = pictures(1).expand(repeats, -1, -1, -1)
    found = mask(kind).adapt_output(score.expand(repeats, 4), picture)
    assert len(found.unique(dim=0)) == 1
    assert float((found.mean(dim=0) - score).abs().max()) > 0.02
    near = (picture[:1] + 1e-6).clamp(0, 1)
    assert torch.equal(mask(kind).adapt_output(score, near), found[:1])


def test_fresh_noise_is_averaged_away() -> None:
    """Scores far enough from 0 that clipping, which is no noise, does not act."""
    score, repeats = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), 1000
    picture = pictures(1).expand(repeats, -1, -1, -1)
    naive = mask(OutputNoise, keyed=False, scale=0.02)
    found = naive.adapt_output(score.expand(repeats, 4), picture)
    assert len(found.unique(dim=0)) == repeats
    assert float((found - score).abs().mean()) > 0.01
    assert float((found.mean(dim=0) - score).abs().max()) < 0.003  # four deviations of the mean
    keyed = mask(OutputNoise, scale=0.02).adapt_output(score.expand(repeats, 4), picture)
    assert float((keyed.mean(dim=0) - score).abs().max()) > 0.003


def test_fresh_noise_repeats_in_the_next_run() -> None:
    scores, asked = simplex(6, 4), pictures(6)
    runs = [mask(OutputNoise, keyed=False) for _ in range(2)]
    first = torch.cat(
        [runs[0].adapt_output(part, inputs) for part, inputs in zip(scores.split(2), asked.split(2), strict=True)]
    )
    assert torch.equal(first, runs[1].adapt_output(scores, asked))
    assert not torch.equal(first, runs[1].adapt_output(scores, asked))


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_added_noise_has_its_distribution(name: str) -> None:
    """Two classes at one half: their difference, before clipping acts, is that of two draws."""
    score, n = torch.full((4000, 2), 0.5, dtype=torch.float64), 4000
    found = mask(OutputNoise, noise=name, scale=0.01).adapt_output(score, torch.arange(n)[:, None])
    ratio = (found[:, 0] / found[:, 1]).numpy()
    rng = np.random.default_rng(0)
    drawn = 0.5 + 0.01 * (rng.normal(size=(n, 2)) if name == "gaussian" else rng.laplace(size=(n, 2)))
    assert stats.ks_2samp(ratio, drawn[:, 0] / drawn[:, 1]).pvalue > 0.001


def test_noise_moves_labels_unless_they_are_kept() -> None:
    scores, asked = simplex(300, 10, sharpness=1.0), pictures(300)
    labels = scores.argmax(dim=1)
    free, kept = (
        mask(OutputNoise, scale=0.3, keep_label=flag).adapt_output(scores, asked).argmax(dim=1)
        for flag in (False, True)
    )
    assert 0.05 < float((free == labels).double().mean()) < 0.9
    assert torch.equal(kept, labels)


def test_noise_that_leaves_nothing_gives_the_label() -> None:
    scores = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    assert normalised(torch.zeros(2, 2), scores).tolist() == [[1, 0], [0, 1]]
    found = mask(OutputNoise, scale=50.0).adapt_output(scores[:1].expand(200, 2), torch.arange(200)[:, None])
    first = float((found[:, 0] == 1).double().mean())  # alone above 0 (a quarter), or both below (another)
    assert 0.4 < first < 0.6
    assert 0.15 < float((found[:, 1] == 1).double().mean()) < 0.35


def test_the_order_stays_in_a_thousand_vectors() -> None:
    for epsilon in (0.01, 1.0, 100.0):
        scores = simplex(1000, 12, sharpness=3.0)
        found = mask(OrderNoise, epsilon=epsilon).adapt_output(scores, torch.arange(1000)[:, None])
        assert torch.equal(found.argsort(dim=1, stable=True), scores.argsort(dim=1, stable=True))
        assert float((found.sum(dim=1) - 1).abs().max()) < 1e-5
        assert float((found - scores).abs().sum(dim=1).mean()) > 0.005


def test_a_large_epsilon_leaves_the_scores() -> None:
    scores = simplex(1000, 12)
    moved = [
        float(
            (mask(OrderNoise, epsilon=epsilon).adapt_output(scores, torch.arange(1000)[:, None]) - scores).abs().max()
        )
        for epsilon in (1e-2, 1e2, 1e6)
    ]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 1e-3


@pytest.mark.parametrize("epsilon", [0.5, 20.0])
def test_epsilon_is_twice_the_inverse_scale(epsilon: float) -> None:
    """Two classes: the ratio of the drawn scores is that of two draws of scipy's truncated Laplace."""
    scores, n = torch.tensor([[0.6, 0.4]], dtype=torch.float64), 4000
    found = mask(OrderNoise, epsilon=epsilon).adapt_output(scores.expand(n, 2), torch.arange(n)[:, None])
    rng, drawn = np.random.default_rng(0), []
    for centre, low, high in ((0.6, 0.5, 1.0), (0.4, 0.0, 0.5)):
        laplace = stats.laplace(loc=centre, scale=2 / epsilon)
        drawn.append(laplace.ppf(rng.uniform(laplace.cdf(low), laplace.cdf(high), size=n)))
    assert stats.ks_2samp((found[:, 0] / found[:, 1]).numpy(), drawn[0] / drawn[1]).pvalue > 0.001


@pytest.mark.parametrize("scale", [0.02, 0.2, 200.0])
def test_draws_between_neighbours_are_those_of_a_truncated_laplace(scale: float) -> None:
    numbers = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)[:, None]
    ranked = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).expand(200, 3)
    low, high = ranges(ranked)
    np.testing.assert_allclose(low[0].numpy(), [0.4, 0.25, 0.0])
    np.testing.assert_allclose(high[0].numpy(), [1.0, 0.4, 0.25])
    drawn = truncated_laplace(numbers.expand(200, 3), ranked, low, high, scale)
    for column, centre in enumerate((0.5, 0.3, 0.2)):
        laplace = stats.laplace(loc=centre, scale=scale)
        ends = laplace.cdf([float(low[0, column]), float(high[0, column])])
        reached = (laplace.cdf(drawn[:, column].numpy()) - ends[0]) / (ends[1] - ends[0])
        np.testing.assert_allclose(reached, numbers[:, 0].numpy(), atol=1e-9)


@pytest.mark.parametrize("kind", NOISY)
def test_the_key_is_needed_and_is_all_that_is_stored(kind: type[ScoreMask]) -> None:
    config = make_config(kind.Config, {}, "noise")
    with pytest.raises(ModelError, match="no key yet"):
        kind(config).adapt_output(simplex(2, 4), pictures(2))
    with pytest.raises(ModelError, match="noise key"):
        kind(config).load_state({})
    torch.manual_seed(0)
    fitted: Any = kind(config)
    fitted.fit(None)
    assert set(fitted.state()) == {"key"}
    other = mask(kind).adapt_output(simplex(2, 4), pictures(2))
    assert not torch.equal(fitted.adapt_output(simplex(2, 4), pictures(2)), other)


@pytest.mark.parametrize("options", [{}, {"keyed": False}])
def test_no_generator_is_drawn_from(options: dict[str, object]) -> None:
    noisy = mask(OutputNoise, **options)
    before = global_streams()
    noisy.adapt_output(simplex(3, 4), ["strings", "have", "no values"])
    assert not differences(before, global_streams())


# on a trained target --------------------------------------------------------------------------------------


def test_accuracy_is_kept_exactly_where_the_label_is() -> None:
    setting, images, cpu = image_toy(), ImageModality(), Runtime(device=torch.device("cpu"))
    module = restored(setting, train_toy(setting, images, "classifier")).eval().requires_grad_(False)
    split, adapter = setting.dataset.split("holdout"), images.adapter(setting.dataset.input)
    assert split.labels is not None
    plain = answers(module, adapter, split, cpu)
    for kind in MASKS:
        masked = answers(module, adapter, split, cpu, [mask(kind)])
        assert not torch.equal(plain, masked), kind
        kept = accuracy(masked, split.labels)
        assert kept == accuracy(plain, split.labels) if kind.argmax_preserving else kept > 0.8, kind
