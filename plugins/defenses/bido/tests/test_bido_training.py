"""Batches of several samples of a class, the loss, and what training with it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_bido.batches import ClassGroups, repeated_share
from mi_defense_bido.defense import (
    BilateralDependencyConfig,
    BilateralDependencyOptimisation,
    dependences,
)
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.errors import ConfigError, ModelError
from micore.inputs import InputSpec
from micore.kit.layers import middle_layers, outputs_and_logits
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.lab import holdout_accuracy, restored, train_toy
from micore.testing.toys import ToyAdapter, ToyModality, ToySplit, planted

CPU = Runtime(device=torch.device("cpu"))


def defense(**options: object) -> BilateralDependencyOptimisation:
    return BilateralDependencyOptimisation(make_config(BilateralDependencyConfig, options, "bido"))


# batches --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=12), batch_size=st.integers(4, 40),
    per_class=st.integers(2, 6), seed=st.integers(0, 9),
)  # fmt: skip
def test_an_epoch_holds_each_sample_once(counts: list[int], batch_size: int, per_class: int, seed: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[Random(seed).permutation(len(labels))]
    batches = ClassGroups(per_class)(labels, batch_size, Random(seed))
    assert torch.equal(torch.cat(list(batches)).sort().values, torch.arange(len(labels)))
    assert len(labels) == 1 or all(1 < len(rows) <= batch_size for rows in batches)
    assert len(batches) == -(-len(labels) // batch_size)  # the schedule of the step size counts on it
    again = ClassGroups(per_class)(labels, batch_size, Random(seed))
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))


def test_a_batch_is_16_classes_of_4() -> None:
    labels = torch.arange(64).repeat(20)
    batches = ClassGroups(4)(labels, 64, Random(0))
    counts = [labels[rows].unique(return_counts=True)[1] for rows in batches]
    assert len(batches) == 20
    assert sum(torch.equal(count, torch.full((16,), 4)) for count in counts) == 20


def test_other_classes_and_samples_meet_in_the_next_epoch() -> None:
    labels = torch.arange(64).repeat(20)
    rows = [torch.cat(list(ClassGroups(4)(labels, 64, Random(seed)))) for seed in (0, 1)]
    assert not torch.equal(*rows)
    together = [{frozenset(labels[part].tolist()) for part in epoch.split(64)} for epoch in rows]
    assert not together[0] & together[1]
    assert all(len(sets) == 20 for sets in together)


@pytest.mark.parametrize("per_class", [2, 3, 4, 5])
def test_most_classes_of_a_batch_are_there_twice(per_class: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80).repeat_interleave(torch.randint(5, 40, (80,), generator=generator))
    batches = ClassGroups(per_class)(labels, 64, Random(0))
    shares = [repeated_share(labels[rows]) for rows in batches]
    assert min(shares) >= 0.7
    assert sum(shares) / len(shares) >= 0.8


def test_few_classes_are_all_in_each_batch() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([100, 100, 100, 80, 120]))
    for rows in ClassGroups(4)(labels, 60, Random(0)):
        found, counts = labels[rows].unique(return_counts=True)
        assert found.tolist() == [0, 1, 2, 3, 4]
        assert counts.min() >= 4


SPLIT = ToySplit(*planted(4, 8, 4, Random(0)))
ADAPTER = ToyAdapter(InputSpec(shape=(1, 4, 4), mean=(0.5,), std=(0.5,)))


def network(seed: int = 0) -> nn.Module:
    with CPU.seeded("net", seed):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)
        )


def trainer(guard: BilateralDependencyOptimisation, split: ToySplit = SPLIT, **changes: Any) -> Trainer:
    config = TrainingConfig(epochs=3, batch_size=changes.pop("batch_size", 8), augment="light")
    given: dict[str, Any] = {"module": network(), "runtime": Runtime.create("cpu", seed=5), **changes}
    return Trainer(
        split=split, config=config, adapter=ADAPTER, augment=ToyModality().augment, defenses=[guard], **given
    )


def test_the_training_takes_these_batches() -> None:
    made = trainer(defense(images_per_class=2))
    for _, labels in made.batches(0):
        assert labels.unique(return_counts=True)[1].tolist() == [2, 2, 2, 2]


def test_trainings_that_cannot_be_defended_are_refused() -> None:
    with pytest.raises(ConfigError, match="two classes of 4"):
        trainer(defense(), batch_size=7)
    alone = ToySplit(SPLIT.samples[:8], torch.tensor([0, 1, 2, 3, 3, 0, 4, 5]))
    with pytest.raises(ConfigError, match="33% of the classes"):
        trainer(defense(), alone)
    with pytest.raises(ModelError, match="no hidden layer"):
        defense().adapt_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))


@pytest.mark.parametrize(
    "option", [{"lambda_x": -1}, {"measure": "mine"}, {"norm": "nuclear"}, {"epsilon": 0}, {"images_per_class": 1}]
)
def test_bad_settings_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        defense(**option)


# loss -----------------------------------------------------------------------------------------------------


def batch(module: nn.Module, inputs: Tensor | None = None) -> TrainingBatch:
    with CPU.seeded("batch"):
        data = torch.randn(8, 1, 4, 4) if inputs is None else inputs
    return TrainingBatch(module, data, torch.arange(4).repeat_interleave(2), epoch=0, epochs=3)


def task_of(data: TrainingBatch) -> Callable[[], Tensor]:
    return lambda: functional.cross_entropy(data.logits, data.labels)


def loss_of(guard: BilateralDependencyOptimisation, asked_before: bool = False) -> Tensor:
    module = network()
    data = batch(module)
    if asked_before:
        _ = data.logits
    return guard.training_loss(module, data, task_of(data))


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("options", [{}, {"measure": "coco"}, {"measure": "coco", "norm": "spectral"}])
def test_the_loss_adds_the_input_and_takes_away_the_label(asked_before: bool, options: Mapping[str, object]) -> None:
    guard = defense(lambda_x=0.3, lambda_y=2.0, **options)
    module = network()
    data = batch(module)
    hidden, logits = outputs_and_logits(module, middle_layers(module), data.inputs)
    on_input, on_label = dependences(guard.config, data.inputs, hidden, data.labels)
    expected = functional.cross_entropy(logits, data.labels) + 0.3 * on_input.sum() - 2.0 * on_label.sum()
    found = loss_of(guard, asked_before)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected.float(), rtol=1e-5)


def test_the_measure_that_is_named_is_used() -> None:
    losses = {float(loss_of(defense(**options)).detach()) for options in ({}, {"measure": "coco"})}
    assert len(losses) == 2


def test_without_weights_the_loss_is_the_tasks() -> None:
    data = batch(network())
    assert torch.allclose(loss_of(defense(lambda_x=0, lambda_y=0)), task_of(data)())


def test_mixed_precision_measures_in_full_precision() -> None:
    rows, labels = torch.randn(8, 20, generator=torch.Generator().manual_seed(0)), torch.arange(8) // 2
    plain = dependences(BilateralDependencyConfig(), rows, [rows[:, :9]], labels)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = dependences(BilateralDependencyConfig(), rows, [rows[:, :9]], labels)
    assert all(torch.equal(one, other) for one, other in zip(plain, mixed, strict=True))
    halves = dependences(BilateralDependencyConfig(), rows, [rows[:, :9].bfloat16()], labels)
    assert all(bool(torch.isfinite(values).all()) for values in halves)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    module = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 4))
    data = batch(module, torch.arange(16).reshape(8, 2) % 9)
    with pytest.raises(ModelError, match="numbers"):
        defense().training_loss(module, data, task_of(data))


# trainings ------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


class Stopping(Checkpoints):
    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        if state()["epoch"] == 2:
            raise KilledError


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, path = trainer(defense(images_per_class=2)), tmp_path / "state"
    whole.fit()
    with pytest.raises(KilledError):
        trainer(defense(images_per_class=2), runtime=Runtime.create("cpu", seed=5, checkpoints=Stopping(path, 0))).fit()
    runtime = Runtime.create("cpu", seed=5, checkpoints=Checkpoints(path))
    going_on = trainer(defense(images_per_class=2), module=network(9), runtime=runtime)
    going_on.fit()
    one, other = (made.module.state_dict() for made in (whole, going_on))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["1.weight"], network().state_dict()["1.weight"])


IMAGES = ImageModality()
DIGITS = replace(
    image_toy(), dataset=open_digits(None), training=TrainingConfig(epochs=8, learning_rate=5e-3, augment="none")
)


@cache
def trained(*, defended: bool) -> tuple[float, Tensor, Tensor]:
    """Return the held-out accuracy and the dependences on input and label, layer by layer."""
    bundle = train_toy(DIGITS, IMAGES, "classifier", [defense()] if defended else [])
    module, split = restored(DIGITS, bundle).eval(), DIGITS.dataset.split("private")
    assert split.labels is not None
    rows = ClassGroups(4)(split.labels, 64, Random(0))[0]
    inputs = IMAGES.adapter(DIGITS.dataset.input)(split.take(rows))
    with torch.no_grad():
        hidden, _ = outputs_and_logits(module, middle_layers(module), inputs)
        on_input, on_label = dependences(BilateralDependencyConfig(), inputs, hidden, split.labels[rows])
    return holdout_accuracy(DIGITS, IMAGES, module, CPU), on_input, on_label


def test_hidden_layers_depend_less_on_the_input_and_the_task_is_learned() -> None:
    accuracy, on_input, on_label = trained(defended=True)
    undefended = trained(defended=False)
    assert bool((on_input < undefended[1]).all())
    assert float(on_input.sum()) < 0.85 * float(undefended[1].sum())
    assert float(on_label.sum()) > 0.95 * float(undefended[2].sum())
    assert accuracy >= 0.9
