"""Distances of sets against independent oracles, and the evaluator on sets whose order is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy
import pytest
import scipy.linalg
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from mi_evaluator_distribution.distances import between, frechet, kernels, manifolds, squared_mmd, within
from mi_evaluator_distribution.diversity import duplicates, nearest_hit, spread
from mi_evaluator_distribution.evaluator import DistributionConfig, DistributionEvaluator
from micore.contracts import Case, EvaluatorModel, Reconstruction, Reference, Subject
from micore.errors import DataError
from micore.runtime import Random, Runtime

CLASSES, WIDTH = 4, 5


def drawn(n: int, seed: int, shift: float = 0.0, width: int = 6) -> torch.Tensor:
    return Random(seed).normal((n, width)) * torch.linspace(0.5, 2, width) + shift


def test_the_frechet_distance_is_that_of_the_formula():
    one, two = drawn(80, 1), drawn(70, 2, 0.3)
    means = [part.double().mean(dim=0).numpy() for part in (one, two)]
    covariances = [numpy.cov(part.double().numpy(), rowvar=False) for part in (one, two)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    wanted = ((means[0] - means[1]) ** 2).sum() + numpy.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet(one, two) == pytest.approx(wanted, rel=1e-9)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "m", "width"), [(12, 70, 40), (70, 12, 40), (12, 15, 40), (40, 90, 40)])
def test_with_few_samples_it_is_that_of_the_roots(n, m, width):
    """Against the trace of the symmetric root, whatever the ranks."""
    one, two = drawn(n, 1, width=width).double(), drawn(m, 2, 0.3, width=width).double()
    covariances = [numpy.cov(part.numpy(), rowvar=False) for part in (one, two)]
    values, vectors = numpy.linalg.eigh(covariances[0])
    root = vectors * numpy.sqrt(values.clip(0)) @ vectors.T
    inner = numpy.sqrt(numpy.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    wanted = float((one.mean(dim=0) - two.mean(dim=0)).square().sum())
    wanted += numpy.trace(covariances[0]) + numpy.trace(covariances[1]) - 2 * inner
    assert frechet(one, two) == pytest.approx(wanted, rel=1e-5)


def test_a_covariance_without_full_rank_has_a_distance():
    assert math.isfinite(frechet(drawn(4, 1, width=20), drawn(5, 2, width=20)))
    assert math.isnan(frechet(drawn(1, 1), drawn(9, 2)))


def discrepancy(one: torch.Tensor, two: torch.Tensor) -> float:
    places, others = (torch.zeros(len(part), dtype=torch.int64) for part in (one, two))
    sums = between(one, places, two, others, 1)
    return float(squared_mmd(within(one, places, 1), within(two, others, 1), sums, torch.ones(1, 1).double()))


def test_the_kernel_distance_is_unbiased():
    distances = [discrepancy(drawn(30, seed), drawn(20, 100 + seed)) for seed in range(40)]
    assert abs(numpy.mean(distances)) < 3 * numpy.std(distances) / math.sqrt(len(distances))
    assert discrepancy(drawn(30, 1), drawn(20, 2, 2.0)) > 10 * numpy.std(distances)
    assert math.isnan(discrepancy(drawn(1, 1), drawn(20, 2)))


def test_classes_that_are_drawn_twice_are_no_twins():
    """With classes drawn again, and as many samples of each as before, the kernel distance stays unbiased."""
    rng = torch.Generator().manual_seed(3)
    places = torch.arange(4).repeat_interleave(5)
    centres = 3 * torch.randn(4, 6, generator=rng)
    times = torch.tensor([[2.0, 2, 0, 0], [1, 0, 3, 0], [1, 1, 1, 1]]).double()
    found = []
    for seed in range(60):
        one, two = (centres[places] + drawn(20, number) for number in (seed, 500 + seed))
        sums = between(one, places, two, places, 4)
        found.append(squared_mmd(within(one, places, 4), within(two, places, 4), sums, times))
    values = torch.stack(found)
    assert (values.mean(dim=0).abs() < 3 * values.std(dim=0) / math.sqrt(len(found))).all()


def test_a_class_of_one_sample_takes_means_over_all_pairs():
    one, two = drawn(4, 1).double(), drawn(9, 2).double()
    places, others = torch.tensor([0, 0, 0, 1]), torch.arange(9) % 2
    found = squared_mmd(
        within(one, places, 2), within(two, others, 2), between(one, places, two, others, 2), torch.ones(1, 2).double()
    )
    wanted = within(one, places * 0, 1).mean(torch.ones(1, 1).double())
    assert within(one, places, 2).alone
    assert within(one, places, 2).mean(torch.ones(1, 2).double()) == pytest.approx(float(wanted))
    assert math.isfinite(float(found))


def test_blocks_of_rows_change_nothing(monkeypatch):
    rows, places = drawn(30, 1).double(), torch.arange(30) % 3
    whole = within(rows, places, 3)
    monkeypatch.setattr("mi_evaluator_distribution.distances.BLOCK", 7)
    torch.testing.assert_close(within(rows, places, 3).sums, whole.sums)
    full = kernels(rows, rows).fill_diagonal_(0)
    assert float(whole.sums[0, 1]) == pytest.approx(float(full[places == 0][:, places == 1].sum()))
    assert float(whole.sums[2, 2]) == pytest.approx(float(full[places == 2][:, places == 2].sum()))


def test_the_kernel_distance_is_that_of_the_formula():
    one, two = drawn(6, 1).double(), drawn(5, 2).double()

    def kernel(a, b):
        return (float(a @ b) / 6 + 1) ** 3

    own, other = (
        numpy.mean([kernel(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j])
        for part in (one, two)
    )
    between = numpy.mean([kernel(a, b) for a in one for b in two])
    assert discrepancy(one, two) == pytest.approx(own + other - 2 * between)


@pytest.mark.parametrize("k", [1, 3])
def test_the_overlap_is_that_of_nearest_neighbours(k):
    found, private = drawn(25, 1, 0.8).double(), drawn(30, 2).double()
    overlap = manifolds(found, private, k)
    radii = [
        NearestNeighbors(n_neighbors=k + 1).fit(part.numpy()).kneighbors(part.numpy())[0][:, k]
        for part in (private, found)
    ]
    distances = numpy.linalg.norm(found.numpy()[:, None] - private.numpy()[None], axis=2)
    inside = distances < radii[0][None]
    assert overlap.precision.tolist() == inside.any(axis=1).astype(float).tolist()
    assert overlap.density.tolist() == pytest.approx((inside.sum(axis=1) / k).tolist())
    assert overlap.coverage.tolist() == inside.any(axis=0).astype(float).tolist()
    assert overlap.recall.tolist() == (distances < radii[1][:, None]).any(axis=0).astype(float).tolist()
    assert manifolds(found[: k + 1], private, k) is None


def test_diversity_is_that_of_all_pairs():
    found = drawn(7, 1)
    cosines = [
        float(torch.nn.functional.cosine_similarity(found[i], found[j], dim=0)) for i in range(7) for j in range(i)
    ]
    assert spread(found) == pytest.approx(1 - numpy.mean(cosines), rel=1e-5)
    assert spread(found[:1].expand(5, -1)) == pytest.approx(0, abs=1e-12)
    assert math.isnan(spread(found[:1]))


def test_twins_are_counted_and_not_oneself():
    found = drawn(6, 1)
    assert duplicates(found) == 0
    assert duplicates(torch.cat([found, 3 * found[:2]])) == 4 / 8, "of both twins, whatever their length"
    assert math.isnan(duplicates(found[:1]))


def test_nearest_samples_are_counted_once():
    private = drawn(9, 1)
    assert nearest_hit(private + 1e-4, private) == 9
    assert nearest_hit(private[[2, 2, 5]] + 1e-4, private) == 2


# the evaluator --------------------------------------------------------------------------------------------


class Rows:
    """A split of features; each class has a place of its own."""

    def __init__(self, samples, labels):
        self.samples, self.labels = samples, labels

    def __len__(self):
        return len(self.samples)

    def take(self, rows):
        return self.samples[rows]


def of_classes(n: int, seed: int, shift: float = 0.0) -> Rows:
    labels = torch.arange(CLASSES).repeat_interleave(n)
    places = 6 * torch.eye(CLASSES, WIDTH)[labels]
    return Rows(places + Random(seed).normal((len(labels), WIDTH)) + shift, labels)


class Same(nn.Module):
    """A judge whose features are its inputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs):
        return self.head(inputs)


def subject(name: str, rows: Rows) -> Subject:
    n = int((rows.labels == 0).sum())
    items = [
        Reconstruction(case=Case(id=f"class-{label}", goal="class", label=label),
                       samples=rows.samples[rows.labels == label], scores=torch.zeros(n))
        for label in range(CLASSES)
    ]  # fmt: skip
    return Subject(name=name, reconstructions=items)


def judged(*subjects: Subject, private: Rows | None = None, **options):
    card = SimpleNamespace(model=SimpleNamespace(name="same"))
    judge = EvaluatorModel(
        bundle=SimpleNamespace(fingerprint="0123456789abcdef", card=card), module=Same().eval(),
        adapter=lambda samples: samples,
    )  # fmt: skip
    data = SimpleNamespace(split=lambda _: private or of_classes(30, 1))
    reference = Reference(
        modality=SimpleNamespace(join=lambda parts: torch.cat(list(parts))), dataset=data, target=None,
        evaluator_model=judge,
    )  # fmt: skip
    evaluator = DistributionEvaluator(DistributionConfig(resamples=50, **options))
    found = evaluator.evaluate(subjects, reference, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


def test_nearer_sets_score_as_nearer():
    narrow = of_classes(12, 3)
    narrow.samples = 6 * torch.eye(CLASSES, WIDTH)[narrow.labels] + 0.1 * (
        narrow.samples - 6 * torch.eye(CLASSES, WIDTH)[narrow.labels]
    )
    found = judged(
        subject("like", of_classes(12, 2)), subject("apart", of_classes(12, 2, 1.5)), subject("collapsed", narrow)
    )
    for name in ("fid", "kid"):
        assert found["like", name].value < found["apart", name].value
        interval = found["like", name].interval
        assert interval.low <= found["like", name].value <= interval.high
    assert found["collapsed", "precision"].value > 0.9
    assert found["collapsed", "recall"].value < found["like", "recall"].value
    assert found["like", "coverage"].value > found["apart", "coverage"].value
    assert set(found["like", "coverage"].per_case) == {f"class-{label}" for label in range(CLASSES)}
    assert "not comparable" in found["like", "fid"].notes[0]


def test_a_sample_that_cannot_be_read_is_left_out_and_counted():
    rows = of_classes(12, 2)
    rows.samples[0] = torch.nan
    found = judged(subject("attack", rows))
    assert found["attack", "fid"].n == 47
    assert any("1 samples" in note for note in found["attack", "fid"].notes)
    assert math.isfinite(found["attack", "fid"].value)


def test_too_few_samples_give_no_number_and_a_reason():
    found = judged(subject("attack", of_classes(2, 2)))
    assert math.isnan(found["attack", "coverage"].value)
    assert any("4 classes with fewer than 3" in note for note in found["attack", "coverage"].notes)
    few = judged(subject("attack", of_classes(1, 2)))
    assert any("4 samples for 5 dimensions" in note for note in few["attack", "fid"].notes)


def test_small_classes_have_fewer_neighbours():
    found = judged(subject("attack", of_classes(4, 2)))
    assert "k = 2" in found["attack", "coverage"].notes
    assert math.isfinite(found["attack", "coverage"].value)


def test_private_data_without_labels_are_refused():
    with pytest.raises(DataError, match="no labels"):
        judged(subject("attack", of_classes(3, 2)), private=Rows(torch.zeros(3, WIDTH), None))


def test_an_attack_that_finds_one_picture_is_seen():
    varied, same = of_classes(12, 2), of_classes(12, 2)
    same.samples = same.samples[same.labels * 12]
    found = judged(subject("attack", varied), subject("collapsed", same))
    assert found["collapsed", "diversity"].value == pytest.approx(0, abs=1e-9)
    assert found["attack", "diversity"].value > 0.01
    assert (found["collapsed", "duplicates"].value, found["attack", "duplicates"].value) == (
        1,
        pytest.approx(0.3, abs=0.3),
    )
    assert found["collapsed", "nearest-hit"].value == 1
    assert found["attack", "nearest-hit"].value > 3
    assert set(found["attack", "diversity"].per_case) == {f"class-{label}" for label in range(CLASSES)}
    assert found["attack", "diversity"].direction == "none"


def test_single_reconstructions_have_no_diversity():
    found = judged(subject("attack", of_classes(1, 2)))
    assert math.isnan(found["attack", "diversity"].value)
    assert any("4 classes with fewer than 2 reconstructions" in note for note in found["attack", "diversity"].notes)
    assert found["attack", "nearest-hit"].value == 1


def test_an_interval_that_would_take_hours_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr("mi_evaluator_distribution.figures.MOST_WORK", 50 * WIDTH**3 - 1)
    found = judged(subject("attack", of_classes(12, 2)))
    assert found["attack", "fid"].interval is None
    assert any("would take hours" in note for note in found["attack", "fid"].notes)
    assert found["attack", "kid"].interval is not None
