"""The kernels, against brute-force loops in numpy float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mi_evaluator_face_descriptor.matching import identification, nearest_same_class, verification
from micore.errors import DataError

Cards = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(params=[0, 1, 2])
def cards(request: pytest.FixtureRequest) -> Cards:
    """Descriptors, labels, gallery and gallery labels; labels are neither sorted nor contiguous."""
    rng = np.random.default_rng(request.param)
    classes = np.array([3, 0, 17, 5, 8, 11, 2])
    gallery_labels = np.concatenate([classes, rng.choice(classes, 40)])
    labels = rng.choice(classes, 25)
    centres = rng.normal(size=(18, 6))
    gallery = centres[gallery_labels] + rng.normal(size=(47, 6))
    descriptors = centres[labels] + rng.normal(size=(25, 6))
    return (
        torch.tensor(descriptors, dtype=torch.float32),
        torch.tensor(labels),
        torch.tensor(gallery, dtype=torch.float32),
        torch.tensor(gallery_labels),
    )


def in_numpy(cards: Cards) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in cards]


def test_identification_is_the_rank_of_the_own_centroid(cards: Cards) -> None:
    descriptors, labels, gallery, gallery_labels = in_numpy(cards)
    expected = []
    for descriptor, label in zip(descriptors, labels, strict=True):
        distances = {
            name: np.linalg.norm(descriptor - gallery[gallery_labels == name].mean(0)) for name in set(gallery_labels)
        }
        expected.append(sorted(distances, key=distances.__getitem__).index(label) + 1)
    found = identification(*cards)
    assert found.ranks.tolist() == expected
    assert found.n_classes == 7
    assert found.top1 == pytest.approx(np.mean([rank == 1 for rank in expected]))
    assert found.top5 == pytest.approx(np.mean([rank <= 5 for rank in expected]))
    assert found.mean_reciprocal_rank == pytest.approx(np.mean([1 / rank for rank in expected]))


def test_nearest_same_class_is_a_minimum(cards: Cards) -> None:
    descriptors, labels, gallery, gallery_labels = in_numpy(cards)
    expected = [
        min(np.linalg.norm(descriptor - other) for other in gallery[gallery_labels == label])
        for descriptor, label in zip(descriptors, labels, strict=True)
    ]
    np.testing.assert_allclose(nearest_same_class(*cards), expected, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.6, 2.0, 3.0])
def test_verification_counts_own_and_other_classes(cards: Cards, threshold: float) -> None:
    descriptors, labels, gallery, gallery_labels = in_numpy(cards)
    own, others = [], []
    for descriptor, label in zip(descriptors, labels, strict=True):
        for name in set(gallery_labels):
            nearest = min(np.linalg.norm(descriptor - other) for other in gallery[gallery_labels == name])
            (own if name == label else others).append(nearest < threshold)
    found = verification(*cards, threshold=threshold)
    assert found.accepted.tolist() == own
    assert found.accept_rate == pytest.approx(np.mean(own))
    assert found.impostor_rate == pytest.approx(np.mean(others))


def test_ties_count_against_the_reconstruction() -> None:
    gallery, gallery_labels = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
    found = identification(torch.zeros(2, 1), torch.tensor([0, 1]), gallery, gallery_labels)
    assert found.ranks.tolist() == [2, 2]


def test_a_broken_reconstruction_is_never_a_hit() -> None:
    broken = torch.full((1, 2), math.nan)
    gallery, gallery_labels = torch.rand(4, 2), torch.tensor([0, 1, 2, 3])
    cards = (broken, torch.tensor([1]), gallery, gallery_labels)
    assert identification(*cards).ranks.tolist() == [4]
    assert verification(*cards).accepted.tolist() == [False]
    assert nearest_same_class(*cards).isnan().all()


def test_one_class_has_no_impostors() -> None:
    face = torch.zeros(1, 2)
    assert math.isnan(verification(face, torch.tensor([4]), face, torch.tensor([4])).impostor_rate)


def test_what_does_not_fit_is_refused() -> None:
    face, label = torch.zeros(1, 2), torch.tensor([4])
    with pytest.raises(DataError, match=r"no gallery picture of the classes \[5\]"):
        identification(face, torch.tensor([5]), face, label)
    with pytest.raises(DataError, match="gallery of 1 with 2 labels"):
        nearest_same_class(face, label, face, torch.tensor([4, 4]))
