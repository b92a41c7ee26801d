"""LOMMA's identity loss against formulas in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mi_attack_lomma.identity import AugmentedIdentity, FeaturePrior
from micore.errors import ModelError
from micore.kit.losses import cross_entropy, negative_logit


def linear(seed: int) -> nn.Sequential:
    """A classifier of pictures of 2 px whose features are the pixels after a sigmoid."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(4, 3)).double().requires_grad_(False)


TARGET, STUDENTS = linear(0), [linear(1), linear(2)]
IMAGES = torch.rand(5, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 2, 1, 1, 0])
MEAN = torch.tensor([0.5, 0.6, 0.7, 0.8], dtype=torch.float64)


def logits(network: nn.Sequential, row: int) -> list[float]:
    features = [1 / (1 + math.exp(-pixel)) for pixel in IMAGES[row].flatten().tolist()]
    layer = network[2]
    return [
        sum(w * f for w, f in zip(weights, features, strict=True)) + bias
        for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)  # type: ignore[union-attr, operator]
    ]


def penalty(row: int, distance: str) -> float:
    features = [1 / (1 + math.exp(-pixel)) for pixel in IMAGES[row].flatten().tolist()]
    total = sum((f - m) ** 2 for f, m in zip(features, MEAN.tolist(), strict=True))
    return total / 4 if distance == "mean" else total


@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_raw_logits_are_averaged_and_the_prior_is_added_once(distance: str) -> None:
    prior = FeaturePrior(mean=MEAN, weight=0.7, distance=distance)  # type: ignore[arg-type]
    identity = AugmentedIdentity(target=TARGET, loss=negative_logit, students=STUDENTS, prior=prior)
    for row, value in enumerate(identity(IMAGES, LABELS).tolist()):
        own = [logits(network, row)[LABELS[row]] for network in (TARGET, *STUDENTS)]
        assert value == pytest.approx(-sum(own) / 3 + 0.7 * penalty(row, distance), rel=1e-6)


def test_without_prior_it_is_the_mean_of_the_losses() -> None:
    identity = AugmentedIdentity(target=TARGET, loss=cross_entropy, students=STUDENTS)
    losses = [cross_entropy(network(IMAGES), LABELS) for network in (TARGET, *STUDENTS)]
    torch.testing.assert_close(identity(IMAGES, LABELS), sum(losses) / 3)


def test_alone_it_is_the_targets_loss() -> None:
    torch.testing.assert_close(
        AugmentedIdentity(target=TARGET, loss=cross_entropy)(IMAGES, LABELS), cross_entropy(TARGET(IMAGES), LABELS)
    )


def test_the_target_is_asked_once_with_its_features() -> None:
    asked: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = TARGET

        def forward(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            answer: Tensor = self.inner(images)
            return answer

    identity = AugmentedIdentity(target=Counting(), loss=negative_logit, prior=FeaturePrior(mean=MEAN))
    identity(IMAGES, LABELS)
    assert asked == [5]


def test_gradients_reach_the_images_through_logits_and_features() -> None:
    images = IMAGES.clone().requires_grad_(True)
    identity = AugmentedIdentity(
        target=TARGET, loss=negative_logit, students=STUDENTS, prior=FeaturePrior(mean=MEAN, weight=2.0)
    )
    assert torch.autograd.gradcheck(lambda x: identity(x, LABELS), (images,), rtol=1e-3, atol=1e-5)


def test_a_target_without_features_is_refused() -> None:
    identity = AugmentedIdentity(target=nn.Flatten(), loss=negative_logit, prior=FeaturePrior(mean=MEAN))
    with pytest.raises(ModelError, match="no linear classification layer"):
        identity(IMAGES, LABELS)
