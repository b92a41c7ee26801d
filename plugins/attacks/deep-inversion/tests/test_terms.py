"""The terms of the loss against plain formulas: statistics, jitter, competition, the schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mi_attack_deep_inversion.batch_norm import batch_norm_layers, logits_and_inputs, statistics_distance
from mi_attack_deep_inversion.competition import agreement, jensen_shannon
from mi_attack_deep_inversion.jitter import N_NUMBERS, jittered
from mi_attack_deep_inversion.synthesis import Scale, warm_up_and_cosine
from micore.errors import ModelError
from micore.inputs import InputSpec


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class Network(nn.Module):
    """Two batch normalisations, the second used twice, and one that no forward pass uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.plain = nn.BatchNorm2d(2, track_running_stats=False)
        for number, layer in enumerate((self.first, self.second, self.unused)):
            layer.running_mean = uniform(2, seed=number)
            layer.running_var = 0.5 + uniform(2, seed=number + 10)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.second(torch.relu(self.first(images)))).mean(dim=(2, 3))


# statistics -----------------------------------------------------------------------------------------------


def distance_of(maps: np.ndarray, layer: nn.BatchNorm2d) -> float:
    """Walk over the channels of one group (images, channels, height, width), in float64."""
    channels = [maps[:, channel].astype(np.float64).ravel() for channel in range(maps.shape[1])]
    means, variances = [c.mean() for c in channels], [((c - c.mean()) ** 2).mean() for c in channels]
    return float(
        np.linalg.norm(np.array(means) - np.asarray(layer.running_mean))
        + np.linalg.norm(np.array(variances) - np.asarray(layer.running_var))
    )


def test_statistics_are_those_of_each_group() -> None:
    network, images = Network(), uniform(6, 2, 4, 5)
    layers = batch_norm_layers(network)
    logits, inputs = logits_and_inputs(network, layers, images)
    assert torch.equal(logits, network(images))
    assert [layer is network.first for layer, _ in inputs] == [True, False, False]
    found = statistics_distance(inputs, layers[0], groups=3, first_weight=10.0)
    for group in range(3):
        terms = [distance_of(maps[2 * group : 2 * group + 2].numpy(), layer) for layer, maps in inputs]
        assert float(found[group]) == pytest.approx(10 * terms[0] + terms[1] + terms[2], rel=1e-5)


def test_the_first_layer_is_the_first_one_defined_and_hooks_are_taken_back() -> None:
    network = Network()
    assert batch_norm_layers(network) == [network.first, network.second, network.unused]

    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        logits_and_inputs(broken, batch_norm_layers(network), uniform(1, 2, 4, 4))
    logits_and_inputs(network, batch_norm_layers(network), uniform(1, 2, 4, 4))
    assert not any(layer._forward_pre_hooks for layer in network.modules())


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Linear(2, 2), "without BatchNorm2d layers"),
        (nn.BatchNorm1d(2), "without BatchNorm2d layers"),
        (nn.BatchNorm2d(2, track_running_stats=False), "keep no running statistics"),
    ],
    ids=["linear", "batch-norm-1d", "no-statistics"],
)
def test_a_target_without_statistics_is_refused(network: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        batch_norm_layers(network)
    assert "mi-face" in (caught.value.hint or "")


# jitter ---------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99))
def test_jitter_is_a_shift_and_a_mirror_for_each_group(limit: int, flip: float, seed: int) -> None:
    groups, numbers = uniform(3, 2, 1, 5, 7, seed=seed), uniform(3, N_NUMBERS, seed=seed + 1)
    moved = jittered(groups, numbers, limit=limit, flip=flip)
    for group, (down, right, mirror), result in zip(groups, numbers.tolist(), moved, strict=True):
        shifts = [math.floor(number * (2 * limit + 1)) - limit for number in (down, right)]
        expected = torch.roll(group, shifts, dims=(-2, -1))
        assert torch.equal(result, expected.flip(-1) if mirror < flip else expected)


def test_every_shift_is_equally_likely() -> None:
    numbers = torch.zeros(700, N_NUMBERS)
    numbers[:, 0] = (torch.arange(700) + 0.5) / 700
    image = torch.zeros(700, 1, 1, 7, 1)
    image[..., 3, 0] = 1
    places = jittered(image, numbers, limit=3, flip=0.0)[:, 0, 0, :, 0].argmax(dim=1)
    assert places.bincount().tolist() == [100] * 7


def test_gradients_come_back_to_their_pixels() -> None:
    groups, numbers = uniform(2, 1, 1, 3, 4).double().requires_grad_(True), uniform(2, N_NUMBERS, seed=5)
    assert torch.autograd.gradcheck(lambda values: jittered(values, numbers, limit=2, flip=0.5), (groups,))


# competition ----------------------------------------------------------------------------------------------


def softened(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) / 3)
    return np.clip(powers / powers.sum(axis=1, keepdims=True), 0.01, 0.99)


def test_the_divergence_is_jensen_shannon_at_temperature_three() -> None:
    logits, others = 20 * uniform(4, 5) - 10, 20 * uniform(4, 5, seed=1) - 10
    first, second = softened(logits.numpy()), softened(others.numpy())
    middle = (first + second) / 2
    kl = [(one * np.log(one / middle)).sum(axis=1) for one in (first, second)]
    expected = torch.from_numpy((kl[0] + kl[1]) / 2).float()
    torch.testing.assert_close(jensen_shannon(logits, others), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(agreement(logits, others, 2), 1 - expected.view(2, 2).mean(dim=1), rtol=1e-4, atol=1e-6)


def test_agreement_is_full_between_equals_and_falls_with_disagreement() -> None:
    logits = 20 * torch.eye(4)
    assert agreement(logits, logits, 1).item() == pytest.approx(1.0)
    assert agreement(logits, logits.roll(1, dims=0), 1).item() < 0.5


# schedule and scale ---------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    factors = warm_up_and_cosine(110, 10)(torch.arange(1.0, 111.0))
    assert factors[:10].tolist() == pytest.approx([step / 10 for step in range(1, 11)])
    assert float(factors[10]) == pytest.approx(1.0)
    assert float(factors[60]) == pytest.approx(0.5)
    assert float(factors[109]) == pytest.approx(0.5 + 0.5 * math.cos(math.pi * 0.99), abs=1e-6)
    assert warm_up_and_cosine(1, 0)(torch.ones(1)).tolist() == [1.0]


def test_pixels_are_normalised_as_the_target_does_it() -> None:
    cpu = torch.device("cpu")
    scale = Scale.of(InputSpec(shape=(3, 2, 2), mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2)), cpu)
    images = uniform(2, 4, 3, 2, 2)
    pixels = (images - scale.mean) / scale.std
    torch.testing.assert_close(scale.images(pixels), images)
    torch.testing.assert_close(scale.images(scale.clip(100 * pixels.sign())), (pixels > 0).float())
    plain = Scale.of(InputSpec(shape=(1, 2, 2)), cpu)
    assert plain.images(torch.tensor([[[-1.0]], [[1.0]]])).flatten().tolist() == [0, 1]
