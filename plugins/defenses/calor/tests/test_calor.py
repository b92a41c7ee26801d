"""The confidence loss against its formula and its minimum, the head, the two phases and what they leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor, nn

from mi_defense_calor.defense import LowRankConfidence, LowRankConfidenceConfig, confidence_loss, low_rank_head
from mi_image.classifiers import SmallCnn
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.contracts import Defense
from micore.defending import fit_defenses
from micore.errors import ConfigError, ModelError
from micore.kit.features import features_and_logits
from micore.kit.training import Trainer, TrainingBatch, predict
from micore.runtime import Checkpoints, Runtime
from micore.testing.lab import holdout_accuracy, restored, train_setting, train_toy

CPU, IMAGES = Runtime(device=torch.device("cpu")), ImageModality()


def defense(**options: object) -> LowRankConfidence:
    return LowRankConfidence(make_config(LowRankConfidenceConfig, options, "calor"))


# the loss -------------------------------------------------------------------------------------------------


def loss_at(confidence: float, gamma: float, classes: int = 5) -> float:
    """Return the loss of one sample whose label has this confidence."""
    others = (1 - confidence) / (classes - 1)
    logits = torch.full((1, classes), math.log(others), dtype=torch.float64)
    logits[0, 2] = math.log(confidence)
    return float(confidence_loss(logits, torch.tensor([2]), gamma=gamma, alpha=0.25))


@pytest.mark.parametrize("gamma", [2.0, 4.0, 8.0])
def test_the_best_confidence_is_exp_of_minus_one_over_gamma(gamma: float) -> None:
    grid = np.arange(0.0005, 1, 0.0005)
    assert abs(grid[np.argmin([loss_at(p, gamma) for p in grid])] - math.exp(-1 / gamma)) < 1e-3
    found = minimize_scalar(lambda p: loss_at(p, gamma), bounds=(0.3, 0.999), method="bounded", options={"xatol": 1e-9})
    assert found.x == pytest.approx(math.exp(-1 / gamma), abs=1e-3)
    assert found.fun == pytest.approx(-0.25 / (gamma * math.e))
    assert defense(gamma=gamma).facts() == {"best_confidence": pytest.approx(math.exp(-1 / gamma), abs=1e-4)}


@pytest.mark.parametrize("gamma", [2.0, 8.0])
@pytest.mark.parametrize("alpha", [0.25, 1.5])
def test_the_loss_is_the_papers_formula(gamma: float, alpha: float) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=3, size=(16, 7)), rng.integers(7, size=16)
    log_p = log_softmax(logits, axis=1)[np.arange(16), labels]
    found = confidence_loss(torch.tensor(logits), torch.tensor(labels), gamma=gamma, alpha=alpha)
    np.testing.assert_allclose(found.numpy(), alpha * np.exp(log_p) ** gamma * log_p, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_give_finite_values_and_gradients(dtype: torch.dtype) -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, 3e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = confidence_loss(logits, torch.tensor([0, 0, 0]), gamma=8.0, alpha=0.25)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert loss[:2].tolist() == [0.0, 0.0]


@given(st.floats(-6, 6), st.sampled_from([2.0, 4.0, 8.0]))
def test_confidences_are_pulled_towards_the_best_one(logit: float, gamma: float) -> None:
    logits = torch.tensor([[logit, 0.0]], dtype=torch.float64, requires_grad=True)
    confidence_loss(logits, torch.tensor([0]), gamma=gamma, alpha=0.25).sum().backward()
    distance = float(logits.detach().softmax(dim=1)[0, 0]) - math.exp(-1 / gamma)
    if abs(distance) > 1e-6:
        assert float(logits.grad[0, 0]) * distance > 0


# the head -------------------------------------------------------------------------------------------------


def test_the_head_is_low_rank() -> None:
    with CPU.seeded("net"):
        module, inputs = SmallCnn(12, channels=1, size=16, width=8), torch.randn(64, 1, 16, 16)
        found = defense(rank=3).adapt_model(module)
    assert found is module
    assert [type(part) for part in module.head] == [nn.BatchNorm1d, nn.Linear, nn.Tanh, nn.Linear]
    assert (module.head[0].num_features, module.head[1].out_features, module.head[3].out_features) == (32, 3, 12)
    features, logits = features_and_logits(module, inputs)
    assert features.shape == (64, 3)
    assert bool((features.abs() <= 1).all())
    centred = (logits - module.head[3].bias).detach().double()
    assert int(torch.linalg.matrix_rank(centred, rtol=1e-5)) == 3


def test_the_head_is_put_beside_what_it_replaces() -> None:
    head = low_rank_head(nn.Linear(8, 4, dtype=torch.float64), 2)
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float64}
    alone = defense(rank=2).adapt_model(nn.Linear(8, 4))
    assert alone(torch.randn(5, 8)).shape == (5, 4)


@pytest.mark.parametrize("rank", [8, 20])
def test_a_rank_that_is_no_bottleneck_is_refused(rank: int) -> None:
    with pytest.raises(ModelError, match=f"rank={rank} is no bottleneck for the 8 features"):
        defense(rank=rank).adapt_model(nn.Linear(8, 4))


def test_a_network_without_a_classification_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="linear"):
        defense().adapt_model(nn.Sequential(nn.Flatten(), nn.ReLU()))


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"gamma": 0.0}, {"alpha": 0.0}, {"adaptation": 0.0}, {"adaptation": 1.0}]
)
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        defense(**options)


# two phases -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(2, 200), st.floats(0.01, 0.99))
def test_the_second_phase_is_the_last_share_and_never_all(epochs: int, share: float) -> None:
    shielded = defense(adaptation=share)
    complete = [shielded.is_complete(epoch, epochs) for epoch in range(epochs)]
    assert complete == sorted(complete)
    assert complete[0] is False
    assert complete[-1] is True
    assert abs(sum(complete) - share * epochs) <= 1


def test_the_second_phase_replaces_the_loss() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])

    def loss(epoch: int, task_loss: Callable[[], Tensor]) -> float:
        batch = TrainingBatch(nn.Identity(), logits, labels, epoch, 10)
        return float(defense(adaptation=0.2).training_loss(nn.Identity(), batch, task_loss))

    def unused() -> NoReturn:
        raise AssertionError("the loss so far was computed")

    assert loss(7, lambda: torch.tensor(5.0)) == 5.0
    p = float(logits.softmax(dim=1)[0, 0])
    assert loss(8, unused) == pytest.approx(0.25 * p**8 * math.log(p))


def test_a_training_too_short_for_two_phases_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 epochs"):
        train_setting(image_toy(), IMAGES, CPU, "classifier", [defense()], epochs=1)


# on images ------------------------------------------------------------------------------------------------


def confidences(module: nn.Module) -> Tensor:
    """Return the confidence in each private sample's label."""
    split, adapter = image_toy().dataset.split("private"), IMAGES.adapter(image_toy().dataset.input)
    scores = predict(module, split.take, len(split), adapter, CPU).softmax(dim=1)
    assert split.labels is not None
    return scores.gather(1, split.labels[:, None]).squeeze(1)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_private_samples_get_the_best_confidence(schedule: str) -> None:
    changes = {"epochs": 24, "schedule": schedule}
    plain, _ = train_setting(image_toy(), IMAGES, CPU, "classifier", [], **changes)
    shielded = defense(gamma=2.0, adaptation=0.5)
    adapted, _ = train_setting(image_toy(), IMAGES, CPU, "classifier", [shielded], **changes)
    assert float(confidences(plain.module).median()) > 0.95
    reached = float(confidences(adapted.module).median())
    assert reached == pytest.approx(math.exp(-1 / 2), abs=0.08)
    assert holdout_accuracy(image_toy(), IMAGES, adapted.module, CPU) >= 0.9
    dataset = image_toy().dataset
    fit_defenses(
        [shielded], adapted.module, adapter=IMAGES.adapter(dataset.input), reference=dataset.split("private"),
        fresh=False, dataset=dataset, runtime=CPU,
    )  # fmt: skip
    assert shielded.facts() == {"best_confidence": 0.6065, "median_confidence": pytest.approx(reached, abs=1e-3)}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_second_phase_begins_a_schedule_of_its_own(schedule: str) -> None:
    class Watching(Defense):
        def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
            loss = task_loss()
            rates.setdefault(batch.epoch, made[0].optimizer.param_groups[0]["lr"])
            sizes.setdefault(batch.epoch, len(made[0].optimizer.state))
            return loss

        def adapt_training(self, trainer: Trainer) -> None:
            made.append(trainer)

    made: list[Trainer] = []
    rates: dict[int, float] = {}
    sizes: dict[int, int] = {}
    shielded = [defense(adaptation=0.5, restart=0.2), Watching(None)]
    train_setting(image_toy(), IMAGES, CPU, "classifier", shielded, epochs=8, schedule=schedule)
    assert rates[0] == 1e-2
    assert rates[4] == pytest.approx(2e-3)
    assert sizes[4] == 0 < sizes[3]
    if schedule == "constant":
        assert set(rates.values()) == {1e-2, rates[4]}
    else:
        assert rates[6] == pytest.approx(1e-3)
        assert made[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


class KilledError(Exception):
    pass


class Stopping(Checkpoints):
    """Ends the process after an epoch whose state is written."""

    def __init__(self, path: Path, epoch: int) -> None:
        super().__init__(path, 0)
        self.epoch = epoch

    def offer(self, state: Callable[[], Any]) -> None:
        super().offer(state)
        if state()["epoch"] == self.epoch:
            raise KilledError


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path, stop: int, schedule: str) -> None:
    def train(checkpoints: Checkpoints) -> dict[str, Tensor]:
        runtime, shielded = CPU.with_checkpoints(checkpoints), defense(adaptation=0.5)
        made, _ = train_setting(
            image_toy(), IMAGES, runtime, "classifier", [shielded], epochs=4, schedule=schedule
        )  # fmt: skip
        return dict(made.module.state_dict())

    whole = train(Checkpoints())
    with pytest.raises(KilledError):
        train(Stopping(tmp_path / "state", stop))
    going_on = train(Checkpoints(tmp_path / "state"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in going_on.items())


def test_the_trained_network_comes_back_from_its_weights() -> None:
    setting = replace(image_toy(), training=image_toy().training.model_copy(update={"validation": 0.2}))
    bundle = train_toy(setting, IMAGES, defenses=[defense()])
    module = restored(setting, bundle, defenses=[defense()])
    assert holdout_accuracy(setting, IMAGES, module, CPU) >= 0.9
    assert isinstance(module.get_submodule("head"), nn.Sequential)
