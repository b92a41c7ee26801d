"""Distance correlation against its definition in float64, and what training with it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_nopeek.defense import DistanceCorrelationPenalty, NoPeekConfig, guarded_layer
from mi_defense_nopeek.distance_correlation import distance_correlation, distances, unbiased_squared
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.defending import fit_defenses
from micore.errors import ConfigError, ModelError
from micore.kit.layers import middle_layers
from micore.kit.training import PartOf, TrainingBatch, TrainingConfig
from micore.runtime import Runtime
from micore.testing.lab import holdout_accuracy, restored, train_toy

Floats = NDArray[np.float64]
CPU = Runtime(device=torch.device("cpu"))


def defense(**options: object) -> DistanceCorrelationPenalty:
    return DistanceCorrelationPenalty(make_config(NoPeekConfig, options, "nopeek"))


# the statistic, from its definition -----------------------------------------------------------------------


def matrix(rows: Floats) -> Floats:
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in rows] for a in rows])


def definition(one: Floats, other: Floats) -> float:
    products = {}
    n = len(one)
    h = np.eye(n) - np.ones((n, n)) / n
    a, b = h @ matrix(one) @ h, h @ matrix(other) @ h
    for name, (left, right) in {"ab": (a, b), "aa": (a, a), "bb": (b, b)}.items():
        products[name] = np.sqrt((left * right).sum()) / n
    return float(products["ab"] / np.sqrt(products["aa"] * products["bb"]))


def u_definition(one: Floats, other: Floats) -> float:
    """Bias-corrected dCor^2, entry by entry."""
    n = len(one)

    def u(d: Floats) -> Floats:
        rows, total = d.sum(axis=1), d.sum()
        entries = [
            [0 if i == j else d[i, j] - rows[i] / (n - 2) - rows[j] / (n - 2) + total / ((n - 1) * (n - 2))
             for j in range(n)] for i in range(n)
        ]  # fmt: skip
        return np.array(entries, dtype=np.float64)

    a, b = u(matrix(one)), u(matrix(other))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def pair(n: int, d: int, k: int, seed: int) -> tuple[Floats, Floats]:
    """Return rows (n, d) and rows (n, k) that depend on them in part."""
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(n, d))
    return one, np.tanh(one @ rng.normal(size=(d, k))) + 0.3 * rng.normal(size=(n, k))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 14), d=st.integers(1, 5), k=st.integers(1, 4), seed=st.integers(0, 99))
def test_both_statistics_are_their_definitions(n: int, d: int, k: int, seed: int) -> None:
    one, other = pair(n, d, k, seed)
    given = torch.tensor(one), torch.tensor(other)
    assert float(distance_correlation(*given)) == pytest.approx(definition(one, other), rel=1e-6)
    assert float(unbiased_squared(*given)) == pytest.approx(u_definition(one, other), rel=1e-6, abs=1e-7)


def test_float32_is_close_at_the_size_of_a_batch() -> None:
    one, other = pair(64, 768, 256, 0)
    given = torch.tensor(one + 5).float(), torch.tensor(other).float()
    assert float(distance_correlation(*given)) == pytest.approx(definition(one, other), rel=1e-4)
    assert float(unbiased_squared(*given)) == pytest.approx(u_definition(one, other), rel=1e-3)


def test_distances_are_not_squared_and_none_is_left_on_the_diagonal() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert torch.allclose(distances(rows), torch.tensor([[0.0, 5.0], [5.0, 0.0]]))
    many = distances(torch.randn(40, 500, generator=torch.Generator().manual_seed(0)) + 100)
    assert float(many.diagonal().abs().max()) == 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_moving_turning_and_scaling_change_nothing(seed: int, scale: float, shift: float) -> None:
    one, other = (torch.tensor(rows) for rows in pair(10, 4, 3, seed))
    turn = torch.linalg.qr(torch.tensor(np.random.default_rng(seed).normal(size=(4, 4))))[0]
    moved = scale * one @ turn + shift
    assert float(distance_correlation(moved, other)) == pytest.approx(float(distance_correlation(one, other)), rel=1e-6)
    assert float(distance_correlation(moved, one)) == pytest.approx(1.0)
    assert float(unbiased_squared(moved, one)) == pytest.approx(1.0)
    assert 0 <= float(distance_correlation(other, one)) <= 1 + 1e-9


@pytest.mark.parametrize(("n", "biased", "room"), [(32, 0.997, 0.2), (64, 0.995, 0.1), (256, 0.980, 0.03)])
def test_independent_rows_seem_to_depend_until_the_bias_is_corrected(n: int, biased: float, room: float) -> None:
    rng = np.random.default_rng(0)
    one, other = (torch.tensor(rng.normal(size=(n, d))) for d in (3072, 1024))
    assert float(distance_correlation(one, other)) == pytest.approx(biased, abs=1.5e-3)
    assert abs(float(unbiased_squared(one, other))) < room


@pytest.mark.parametrize("case", ["constant", "equal pairs", "usual"])
def test_gradients_are_finite(case: str) -> None:
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    hidden = {"constant": torch.ones(8, 3), "equal pairs": rows[::2, :3].repeat(2, 1), "usual": rows[:, :3]}[case]
    hidden = hidden.clone().requires_grad_(True)
    found = distance_correlation(rows, hidden)
    found.backward()
    assert hidden.grad is not None
    assert bool(torch.isfinite(hidden.grad).all())
    assert bool(hidden.grad.any()) == (case != "constant")
    assert case != "constant" or float(found.detach()) < 1e-3


def test_the_gradient_is_that_of_the_definition() -> None:
    one, other = pair(9, 3, 2, 1)
    hidden = torch.tensor(other, requires_grad=True)
    distance_correlation(torch.tensor(one), hidden).backward()
    step = np.zeros_like(other)
    step[4, 1] = 1e-6
    expected = (definition(one, other + step) - definition(one, other - step)) / 2e-6
    assert hidden.grad is not None
    assert float(hidden.grad[4, 1]) == pytest.approx(expected, rel=1e-4)


def test_three_samples_are_too_few_for_the_correction() -> None:
    with pytest.raises(ValueError, match="4 samples"):
        unbiased_squared(torch.randn(3, 2), torch.randn(3, 2))


# the defense ----------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    with CPU.seeded("net"):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7), nn.Linear(7, 6), nn.Linear(6, 3)
        )


def batch(module: nn.Module, inputs: Tensor | None = None) -> TrainingBatch:
    with CPU.seeded("batch"):
        data = torch.randn(6, 3, 2, 2) if inputs is None else inputs
    return TrainingBatch(module, data, torch.arange(6) % 3, epoch=0, epochs=3)


def task_of(data: TrainingBatch) -> Callable[[], Tensor]:
    return lambda: functional.cross_entropy(data.logits, data.labels)


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_loss_is_that_of_the_chosen_layer(asked_before: bool, layer: int) -> None:
    module = network()
    data = batch(module)
    if asked_before:
        _ = data.logits
    found = defense(weight=3.0, layer=layer).training_loss(module, data, task_of(data))
    flat = data.inputs.flatten(1)
    hidden = module[: 4 + layer](data.inputs)
    expected = definition(flat.double().numpy(), hidden.detach().double().numpy())
    assert torch.allclose(found, task_of(data)() + 3.0 * expected, rtol=1e-4)


def test_layers_and_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="2 hidden layers, none of number 2"):
        defense(layer=2).adapt_model(network())
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 3))
    data = batch(module, torch.arange(12).reshape(6, 2) % 9)
    with pytest.raises(ModelError, match="numbers"):
        defense().training_loss(module, data, task_of(data))


@pytest.mark.parametrize("option", [{"weight": -1}, {"layer": -1}, {"layers": 0}, {"measured": 3}])
def test_bad_settings_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        defense(**option)


def test_mixed_precision_measures_in_full_precision() -> None:
    one, other = (torch.tensor(rows).float() for rows in pair(30, 20, 9, 0))
    plain = distance_correlation(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distance_correlation(one, other), plain)
    assert float(distance_correlation(one, other.bfloat16())) == pytest.approx(float(plain), rel=1e-2)


# on a trained target --------------------------------------------------------------------------------------

IMAGES = ImageModality()
DIGITS = replace(
    image_toy(), dataset=open_digits(None), training=TrainingConfig(epochs=8, learning_rate=5e-3, augment="none")
)


def measured(module: nn.Module, *, n: int | None = None, **options: object) -> DistanceCorrelationPenalty:
    guard, split = defense(**options), DIGITS.dataset.split("private")
    reference = split if n is None else PartOf(split, torch.arange(n))
    fit_defenses(
        [guard], module, adapter=IMAGES.adapter(DIGITS.dataset.input), reference=reference, fresh=True,
        dataset=DIGITS.dataset, runtime=CPU,
    )  # fmt: skip
    return guard


@cache
def trained(weight: float) -> nn.Module:
    bundle = train_toy(DIGITS, IMAGES, "classifier", [defense(weight=weight)])
    return restored(DIGITS, bundle).eval()


def test_the_layer_depends_less_on_the_input_and_the_task_is_learned() -> None:
    plain, guarded = (
        measured(trained(weight)).facts()["unbiased_squared_distance_correlation"] for weight in (0.0, 10.0)
    )
    assert guarded < plain - 0.05
    assert holdout_accuracy(DIGITS, IMAGES, trained(10.0), CPU) >= 0.9


@torch.no_grad()
def test_the_card_tells_the_corrected_statistic() -> None:
    module, n = trained(10.0), 40
    facts = measured(module, n=n).facts()
    inputs = IMAGES.adapter(DIGITS.dataset.input)(DIGITS.dataset.split("private").take(range(n)))
    caught: list[Tensor] = []
    layer = guarded_layer(module, NoPeekConfig())
    assert layer is middle_layers(module)[0]
    handle = layer.register_forward_hook(lambda _, __, output: caught.append(output))
    module(inputs)
    handle.remove()
    expected = u_definition(inputs.flatten(1).double().numpy(), caught[0].flatten(1).double().numpy())
    assert facts["unbiased_squared_distance_correlation"] == pytest.approx(expected, rel=1e-3)
    assert (facts["measured_samples"], facts["measured_on"]) == (n, "validation samples")


def test_the_figure_needs_four_samples_and_takes_no_more_than_it_was_told() -> None:
    assert measured(trained(0.0), n=3).facts() == {}
    assert measured(trained(0.0), measured=10).facts()["measured_samples"] == 10
