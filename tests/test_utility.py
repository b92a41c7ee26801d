"""The worth of a target: what its users get is measured, not what the network says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from micore.runtime import Runtime
from micore.utility import calibration_error, measure


def by_bins(scores: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Return the expected calibration error from its definition, bin by bin."""
    confidence, chosen = scores.max(axis=1), scores.argmax(axis=1)
    total = 0.0
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        if inside.any():
            total += inside.mean() * abs((chosen == labels)[inside].mean() - confidence[inside].mean())
    return total


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 12), n=st.integers(1, 200), bins=st.integers(1, 20))
def test_the_calibration_error_is_the_definitions(seed, classes, n, bins):
    rng = np.random.default_rng(seed)
    scores, labels = rng.dirichlet(np.ones(classes) * 0.5, size=n), rng.integers(classes, size=n)
    found = calibration_error(torch.tensor(scores), torch.tensor(labels), bins)
    assert found == pytest.approx(by_bins(scores, labels, bins), abs=1e-9)


def test_sure_and_right_is_calibrated_sure_and_wrong_is_not():
    scores, labels = torch.eye(3), torch.arange(3)
    assert calibration_error(scores, labels) == 0
    assert calibration_error(scores, labels.roll(1)) == 1


class Counter(nn.Module):
    """Says a number that is its label, and how far off it was."""

    def answer(self, inputs):
        return inputs

    def task_loss(self, inputs, labels):
        return (inputs[:, 0] - labels).square()

    def quality(self, inputs, labels):
        return {"errors": (inputs[:, 0] - labels).abs()}


class Part:
    """Two numbers, of which one is wrong by 2."""

    labels = torch.tensor([1, 2])

    def __len__(self):
        return 2

    def take(self, rows):
        return torch.tensor([[1.0], [4.0]])[rows]


def test_a_network_with_a_task_of_its_own_may_tell_its_quality():
    part = Part()
    dataset = SimpleNamespace(split=lambda name: part)
    found = measure(Counter(), lambda samples: samples, dataset, part, Runtime.create("cpu"))
    assert found == {
        f"{name}_{what}": value
        for name in ("train", "holdout")
        for what, value in (("loss", 2.0), ("errors", 1.0), ("samples", 2))
    }
