"""Distances against scipy and scikit-learn in float64, and the evaluator as the core calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_distances
from torch import Tensor, nn

from mi_evaluator_distance.evaluator import (
    DistanceConfig,
    DistanceEvaluator,
    Gallery,
    figures,
    nearest_of_class,
    nearest_public,
    squared_distances,
)
from micore.contracts import Case, Evaluator, EvaluatorModel, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import DataError, ModelError
from micore.kit.features import features_and_logits
from micore.runtime import Runtime

TENSORS = SimpleNamespace(join=torch.cat)
"""All that these tests need of a modality."""

N_CLASSES, PER_CLASS, SIZE, WIDTH = 4, 5, 6, 7


def random(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


def gallery(seed: int, n_public: int = 30) -> Gallery:
    labels = torch.arange(N_CLASSES).repeat(PER_CLASS)
    return Gallery(random(seed, len(labels), WIDTH), labels, random(seed + 100, n_public, WIDTH))


# kernels --------------------------------------------------------------------------------------------------


def test_squared_distances_are_those_of_scipy() -> None:
    near = 1000 + 1e-3 * random(0, 9, WIDTH)  # a matrix product in place of differences loses all digits here
    others = 1000 + 1e-3 * random(1, 11, WIDTH)
    expected = cdist(near.double().numpy(), others.double().numpy(), "sqeuclidean")
    np.testing.assert_allclose(squared_distances(near, others).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_minima_over_the_class(seed: int) -> None:
    cards, features = gallery(seed), random(seed + 50, 12, WIDTH)
    labels = torch.tensor(np.random.default_rng(seed).integers(N_CLASSES, size=12))
    found = {figure.name: figure.values.numpy() for figure in figures(features, labels, cards)}
    assert cards.public is not None
    ours, private, public = (part.double().numpy() for part in (features, cards.private, cards.public))
    own = labels.numpy()[:, None] == cards.labels.numpy()[None, :]
    squared, cosine = cdist(ours, private, "sqeuclidean"), cosine_distances(ours, private)
    np.testing.assert_allclose(found["distance-private"], np.where(own, squared, np.inf).min(1), rtol=1e-9)
    np.testing.assert_allclose(found["cosine-private"], np.where(own, cosine, np.inf).min(1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["distance-public"], cdist(ours, public, "sqeuclidean").min(1), rtol=1e-9)


def test_without_public_data_there_is_no_distance_to_them() -> None:
    cards = gallery(0)
    names = [f.name for f in figures(cards.private, cards.labels, Gallery(cards.private, cards.labels, None))]
    assert names == ["distance-private", "cosine-private"]


def test_a_class_without_private_samples_has_no_distance() -> None:
    cards = gallery(0)
    found = nearest_of_class(random(9, 2, WIDTH), torch.tensor([N_CLASSES, 0]), cards.private, cards.labels)
    assert found.isnan().tolist() == [True, False]


def test_an_unreadable_sample_has_no_distance() -> None:
    cards, broken = gallery(0), torch.full((1, WIDTH), torch.nan)
    assert all(figure.values.isnan().all() for figure in figures(broken, torch.tensor([0]), cards))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_kth_row_of_a_class_gets_its_kth_nearest_public_sample(seed: int) -> None:
    cards, labels = gallery(seed), torch.tensor([2, 0, 2, 3, 0, 2])
    assert cards.public is not None
    expected, seen = [], dict.fromkeys(range(N_CLASSES), 0)
    for label in labels.tolist():
        members = [row for row, own in zip(cards.private.tolist(), cards.labels.tolist(), strict=True) if own == label]
        distances = [
            min(sum((a - b) ** 2 for a, b in zip(candidate, member, strict=True)) for member in members)
            for candidate in cards.public.tolist()
        ]
        expected.append(int(np.argsort(distances, kind="stable")[seen[label]]))
        seen[label] += 1
    assert nearest_public(cards.public, labels, cards).tolist() == expected


def test_few_public_samples_are_taken_in_turn() -> None:
    cards = gallery(0, n_public=2)
    assert cards.public is not None
    chosen = nearest_public(cards.public, torch.zeros(5, dtype=torch.int64), cards).tolist()
    assert chosen[:2] == chosen[2:4]
    assert set(chosen) == {0, 1}


# the evaluator --------------------------------------------------------------------------------------------


@dataclass
class Pictures:
    samples: Tensor
    labels: Tensor | None = None
    taken: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        rows = torch.as_tensor(indices)
        self.taken.update(rows.tolist())
        return self.samples[rows]


class Setting:
    """A random judge, private pictures of every class and public ones."""

    def __init__(self, *, n_public: int = 40, missing: int | None = None) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.module = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, N_CLASSES))
        labels = torch.arange(N_CLASSES).repeat(PER_CLASS)
        kept = labels != (-1 if missing is None else missing)
        self.private = Pictures(random(1, len(labels), SIZE)[kept], labels[kept])
        self.public = Pictures(random(2, n_public, SIZE)) if n_public else None
        self.holdout: Pictures | None = None

    def split(self, name: str) -> Pictures:
        found = {"private": self.private, "public": self.public, "holdout": self.holdout}[name]
        if found is None:
            raise DataError(f"no split {name!r}")
        return found

    def features(self, samples: Tensor) -> np.ndarray:
        """Compute what goes into the last layer by hand."""
        first = self.module[1]
        with torch.no_grad():
            return np.tanh(samples.double().numpy() @ first.weight.double().numpy().T + first.bias.double().numpy())

    def measure(
        self, *subjects: Subject, truth: dict[str, Truth] | None = None, **options: int
    ) -> dict[tuple[str, str], Measurement]:
        judge = EvaluatorModel(
            bundle=SimpleNamespace(fingerprint="0123456789abcdef"),  # type: ignore[arg-type]
            module=self.module, adapter=lambda samples: samples, notes=("shares its seed",),
        )  # fmt: skip
        given = Reference(
            modality=TENSORS, dataset=self, target=None, evaluator_model=judge, truth=truth or {}  # type: ignore[arg-type]
        )  # fmt: skip
        evaluator = DistanceEvaluator(DistanceConfig(resamples=100, **options))
        return {(m.subject, m.name): m for m in evaluator.evaluate(subjects, given, Runtime.create("cpu"))}


def subject(samples: Tensor, labels: Tensor, name: str = "attack") -> Subject:
    """Make one case per class."""
    items = [
        Reconstruction(
            case=Case(id=f"class-{label}", goal="class", label=label),
            samples=samples[labels == label],
            scores=torch.zeros(int((labels == label).sum())),
        )
        for label in labels.unique().tolist()
    ]
    return Subject(name=name, reconstructions=items)


LABELS = torch.arange(N_CLASSES).repeat(3)


def test_a_perfect_reconstruction_has_distance_zero() -> None:
    setting = Setting()
    assert setting.private.labels is not None
    found = setting.measure(subject(setting.private.samples, setting.private.labels))
    for name in ("distance-private", "cosine-private"):
        assert found["attack", name].value == pytest.approx(0.0, abs=1e-9)
        assert found["attack", name].direction == "down"
    assert found["attack", "distance-public"].value > 0
    assert found["attack", "distance-public"].direction == "none"


def test_an_attack_that_gives_back_public_samples_is_found_out() -> None:
    setting = Setting()
    assert setting.public is not None
    found = setting.measure(subject(setting.public.samples[: len(LABELS)], LABELS))
    assert found["attack", "distance-public"].value == pytest.approx(0.0, abs=1e-9)
    assert found["attack", "distance-public"].value < found["attack", "distance-private"].value


def test_the_ratio_is_that_to_held_out_samples_of_the_class() -> None:
    setting, samples = Setting(), random(5, len(LABELS), SIZE)
    setting.holdout = Pictures(random(6, 3 * N_CLASSES, SIZE), torch.arange(N_CLASSES).repeat(3))
    held_out = subject(setting.holdout.samples, setting.holdout.labels, "holdout")
    found = setting.measure(subject(samples, LABELS), held_out)
    scales = found["holdout", "distance-private"].per_case
    for name in ("attack", "nearest-public"):
        wanted = {case: value / scales[case] for case, value in found[name, "distance-private"].per_case.items()}
        assert found[name, "distance-ratio"].per_case == pytest.approx(wanted)
    assert found["holdout", "distance-ratio"].value == pytest.approx(1)
    item = found["attack", "distance-ratio"]
    assert (item.direction, item.unit) == ("down", "of held-out")
    alone = setting.measure(subject(samples[LABELS == 2], LABELS[LABELS == 2]))
    assert alone["attack", "distance-ratio"].per_case["class-2"] == item.per_case["class-2"], "no other class counts"


def test_without_held_out_samples_there_is_no_ratio() -> None:
    setting = Setting()
    given = subject(random(5, len(LABELS), SIZE), LABELS)
    assert ("attack", "distance-ratio") not in setting.measure(given)
    setting.holdout = setting.private
    assert ("attack", "distance-ratio") not in setting.measure(given), "held-out samples that are private ones"
    setting.holdout = Pictures(random(6, 1, SIZE), torch.tensor([1]))
    assert setting.measure(given)["attack", "distance-ratio"].per_case.keys() == {"class-1"}


def test_the_note_names_the_variant() -> None:
    found = Setting().measure(subject(random(5, len(LABELS), SIZE), LABELS))
    assert "squared L2, features not normalised" in found["attack", "distance-private"].notes[0]


def test_features_are_the_penultimate_ones() -> None:
    setting, samples = Setting(), random(5, len(LABELS), SIZE)
    value = setting.measure(subject(samples, LABELS))["attack", "distance-private"]
    caught = features_and_logits(setting.module, samples)[0].detach().numpy()
    np.testing.assert_allclose(caught, setting.features(samples), rtol=1e-4, atol=1e-6)
    distances = cdist(setting.features(samples), setting.features(setting.private.samples), "sqeuclidean")
    own = LABELS.numpy()[:, None] == setting.private.labels.numpy()[None, :]  # type: ignore[union-attr]
    nearest = np.where(own, distances, np.inf).min(1)
    expected = {f"class-{label}": nearest[LABELS.numpy() == label].mean() for label in range(N_CLASSES)}
    assert value.per_case == pytest.approx(expected, rel=1e-4)
    assert value.value == pytest.approx(np.mean(list(expected.values())), rel=1e-4)
    assert (value.evaluator, value.unit) == ("distance@0123456789ab", "squared L2")
    assert "shares its seed" in value.notes


def test_the_nearest_public_samples_are_a_subject() -> None:
    setting = Setting()
    assert setting.public is not None
    found = setting.measure(subject(random(5, len(LABELS), SIZE), LABELS), subject(random(6, 4, SIZE), LABELS[:4], "b"))
    control = found["nearest-public", "distance-private"]
    private, public = setting.features(setting.private.samples), setting.features(setting.public.samples)
    expected = {}
    for label in range(N_CLASSES):
        own = private[setting.private.labels.numpy() == label]  # type: ignore[union-attr]
        expected[f"class-{label}"] = np.sort(cdist(public, own, "sqeuclidean").min(1))[:3].mean()
    assert control.per_case == pytest.approx(expected, rel=1e-4)
    assert control.n == len(LABELS)  # as many as the first subject has
    assert found["nearest-public", "distance-public"].value == pytest.approx(0.0, abs=1e-9)
    assert {name for name, _ in found} == {"attack", "b", "nearest-public"}


def test_a_class_without_private_samples_is_left_out_and_said_so() -> None:
    setting = Setting(missing=1)
    found = setting.measure(subject(random(5, len(LABELS), SIZE), LABELS))
    for name in ("attack", "nearest-public"):
        item = found[name, "distance-private"]
        assert (item.n, item.clusters) == (9, 3)
        assert "class-1" not in item.per_case
        assert "3 samples without a finite value left out" in item.notes
    assert found["attack", "distance-public"].n == 12


def test_unreadable_samples_are_left_out_and_said_so() -> None:
    samples = random(5, len(LABELS), SIZE)
    samples[2] = torch.nan
    for item in [m for (name, _), m in Setting().measure(subject(samples, LABELS)).items() if name == "attack"]:
        assert item.n == len(LABELS) - 1
        assert "1 samples without a finite value left out" in item.notes


def test_only_the_first_public_samples_are_compared_with() -> None:
    setting, whole = Setting(n_public=40), Setting(n_public=6)
    attack = subject(random(5, len(LABELS), SIZE), LABELS)
    limited = setting.measure(attack, public_limit=6, batch_size=4)
    assert setting.public is not None
    assert setting.public.taken == set(range(6))
    assert whole.public is not None
    whole.public.samples = setting.public.samples[:6]
    assert limited == whole.measure(attack, batch_size=4)


def test_without_public_data_there_is_no_control() -> None:
    found = Setting(n_public=0).measure(subject(random(5, len(LABELS), SIZE), LABELS))
    assert set(found) == {("attack", "distance-private"), ("attack", "cosine-private")}


def test_batches_do_not_matter() -> None:
    attack = subject(random(5, len(LABELS), SIZE), LABELS)
    one, many = Setting().measure(attack, batch_size=1), Setting().measure(attack, batch_size=64)
    assert {key: item.value for key, item in one.items()} == pytest.approx(
        {key: item.value for key, item in many.items()}, rel=1e-4
    )


def test_what_cannot_be_judged_is_refused() -> None:
    evaluator, setting = DistanceEvaluator(DistanceConfig()), Setting()
    assert isinstance(evaluator, Evaluator)
    attack = subject(random(5, len(LABELS), SIZE), LABELS)
    no_judge = Reference(modality=TENSORS, dataset=setting, target=None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="needs an evaluator model"):
        evaluator.evaluate([attack], no_judge, Runtime.create("cpu"))
    setting.private.labels = None
    with pytest.raises(DataError, match="the private split has no labels"):
        setting.measure(attack)


# goal instance --------------------------------------------------------------------------------------------


def instances(setting: Setting, samples: Tensor, name: str = "attack") -> tuple[Subject, dict[str, Truth]]:
    """Make a case of two samples for each of the first private samples, with its truth."""
    rows = range(len(samples) // 2)
    items = [
        Reconstruction(case=Case(id=f"image-{row}", goal="instance"), samples=samples[2 * row : 2 * row + 2],
                       scores=torch.zeros(2))
        for row in rows
    ]  # fmt: skip
    labels = setting.private.labels
    assert labels is not None
    truth = {f"image-{row}": Truth(sample=setting.private.take([row]), label=int(labels[row])) for row in rows}
    return Subject(name=name, reconstructions=items), truth


def test_an_instance_is_compared_with_the_very_sample() -> None:
    setting, samples = Setting(), random(5, 12, SIZE)
    attack, truth = instances(setting, samples)
    exact, _ = instances(setting, setting.private.samples[:6].repeat_interleave(2, 0), "evidence")
    found = setting.measure(attack, exact, truth=truth)
    assert {name for _, name in found} == {"distance-truth", "cosine-truth"}
    true = setting.features(setting.private.samples[:6]).repeat(2, axis=0)
    ours = setting.features(samples)
    squared = ((ours - true) ** 2).sum(1).reshape(6, 2).mean(1)
    cosine = np.diag(cosine_distances(ours, true)).reshape(6, 2).mean(1)
    for name, expected in (("distance-truth", squared), ("cosine-truth", cosine)):
        item = found["attack", name]
        assert item.per_case == pytest.approx({f"image-{row}": value for row, value in enumerate(expected)}, rel=1e-4)
        assert (item.direction, item.n, item.clusters) == ("down", 12, 4)
        assert found["evidence", name].value == pytest.approx(0.0, abs=1e-9)
    assert found["attack", "distance-truth"].evaluator == "distance@0123456789ab"


def test_an_instance_without_truth_is_refused() -> None:
    setting = Setting()
    attack, _ = instances(setting, random(5, 4, SIZE))
    with pytest.raises(DataError, match="nobody knows the truth of image-0, image-1"):
        setting.measure(attack)
