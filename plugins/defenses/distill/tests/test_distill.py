"""The loss against its formula, the teacher, the student, and a training that was killed in between."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_distill.defense import Distillation
from mi_defense_distill.teacher import AtTemperature, PublicSplit, distillation, renewed
from micore.configs import make_config
from micore.contracts import Defense, Fitting
from micore.errors import ConfigError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig, accuracy, predict
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.toys import ToyAdapter, ToyModality, ToySplit, anywhere, planted

CPU = Runtime(device=torch.device("cpu"), seed=5)
PRIVATE = ToySplit(*planted(4, 16, 8, Random(0)))
HOLDOUT = ToySplit(*planted(4, 40, 8, Random(9)))
PUBLIC = ToySplit(anywhere(120, 8, Random(3)), torch.arange(120) % 7)
ADAPTER = ToyAdapter(InputSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.25,)))
CONFIG = TrainingConfig(epochs=10, batch_size=16, learning_rate=1e-2, augment="none")
SHORT = CONFIG.model_copy(update={"epochs": 3, "augment": "light"})


def distill(**options: Any) -> Distillation:
    return Distillation(make_config(Distillation.Config, options, "distill"))


def network() -> nn.Module:
    with CPU.seeded("network"):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 4)
        )


def trainer(*defenses: Defense, runtime: Runtime = CPU, config: TrainingConfig = CONFIG, **changes: Any) -> Trainer:
    return Trainer(
        network(), PRIVATE, config=config, defenses=defenses, runtime=runtime, adapter=ADAPTER,
        augment=ToyModality().augment, n_classes=4, **changes,
    )  # fmt: skip


def utility(module: nn.Module) -> float:
    return accuracy(predict(module, HOLDOUT.take, len(HOLDOUT), ADAPTER, CPU), HOLDOUT.labels)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# the loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "trained_at"), [(1.0, 1.0), (4.0, 1.0), (20.0, 20.0)])
def test_the_loss_is_the_divergence_from_the_teacher(temperature: float, trained_at: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(scale=5, size=(2, 16, 9))
    own, given = log_softmax(student / temperature, axis=1), log_softmax(teacher / temperature, axis=1)
    expected = temperature**2 / trained_at * (np.exp(given) * (given - own)).sum(axis=1).mean()
    found = distillation(torch.tensor(student), torch.tensor(teacher), temperature, trained_at)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(distillation(torch.tensor(teacher), torch.tensor(teacher), temperature, trained_at)) < 1e-6


def test_gradients_keep_their_size_at_any_temperature() -> None:
    """A teacher of T = 20 has logits twenty times as far apart; the student's gradient is then what it is at T = 1."""
    logits = torch.randn((8, 5), generator=torch.Generator().manual_seed(1))
    gradients = []
    for scale in (1.0, 20.0):
        student = (torch.zeros(8, 5) * scale).requires_grad_()
        (gradient,) = torch.autograd.grad(distillation(student, logits * scale, scale, scale), student)
        gradients.append(gradient)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    hard = []
    for scale in (1.0, 20.0):
        given = (logits * scale).requires_grad_()
        batch = TrainingBatch(nn.Identity(), given, torch.arange(8) % 5, 0, 1)
        loss = AtTemperature(scale).training_loss(nn.Identity(), batch, torch.zeros(()).clone)
        hard.append(torch.autograd.grad(loss, given)[0])
    assert torch.allclose(hard[0], hard[1], atol=1e-6)


def test_a_share_of_the_labels_is_mixed_in() -> None:
    defense = distill(hard_weight=0.25, temperature=2.0)
    defense._teacher = nn.Linear(6, 3).requires_grad_(False)
    inputs, labels = torch.randn((5, 6), generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    module = nn.Linear(6, 3)
    batch = TrainingBatch(module, inputs, labels, 0, 1)
    hard = functional.cross_entropy(module(inputs), labels)
    soft = distillation(module(inputs), defense._teacher(inputs), 2.0, 2.0)
    assert torch.allclose(defense.training_loss(module, batch, lambda: hard), 0.75 * soft + 0.25 * hard)


# the teacher ----------------------------------------------------------------------------------------------


def test_a_renewed_network_differs_wherever_something_is_trained() -> None:
    module = network()
    module[1].requires_grad_(False)
    before = copy.deepcopy(module)
    module[2].running_mean.add_(3)
    with CPU.seeded("renewed"):
        fresh = renewed(module)
    assert torch.equal(fresh[1].weight, module[1].weight), "frozen layers stay"
    assert not torch.equal(fresh[5].weight, module[5].weight)
    assert not bool(fresh[2].running_mean.any()), "statistics begin anew"
    assert torch.equal(module[5].weight, before[5].weight), "the student is left alone"


def test_teacher_and_student_learn_and_agree() -> None:
    defense = distill()
    made = trainer(defense)
    made.fit()
    teacher = defense._teacher
    assert teacher is not None
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert utility(teacher) > 0.9
    assert utility(made.module) > 0.9
    assert not same(teacher, made.module)
    fitted(defense, made)
    assert defense.facts()["agreement_with_teacher"] > 0.9
    assert defense._teacher is None


def fitted(defense: Distillation, made: Trainer) -> None:
    defense.fit(Fitting(
        module=made.module.eval(), reference=HOLDOUT, reference_is_fresh=True, public=None, n_classes=4,
        adapter=ADAPTER, answer=lambda samples: samples, runtime=CPU,
    ))  # fmt: skip


def test_the_student_ends_near_its_teacher() -> None:
    """The divergence falls: what is learnt is the soft answer, not the label."""
    defense = distill(temperature=4.0)
    made = trainer(defense, config=CONFIG.model_copy(update={"epochs": 20}))
    made.fit()
    answers = [
        predict(module, PRIVATE.take, len(PRIVATE), ADAPTER, CPU)
        for module in (made.module, defense._teacher, network())
    ]
    after, before = (float(distillation(student, answers[1], 4.0, 4.0)) for student in (answers[0], answers[2]))
    assert after < 0.2 * before


def test_answers_at_temperature_one_are_saturated() -> None:
    """The mechanism: the released student is far surer at T = 1 than a plainly trained model."""
    gaps, doubts = [], []
    for defenses in ((), (distill(),)):
        made = trainer(*defenses, config=CONFIG.model_copy(update={"epochs": 30}))
        made.fit()
        logits = predict(made.module, HOLDOUT.take, len(HOLDOUT), ADAPTER, CPU)
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        gaps.append(float((first - second).mean()))
        doubts.append(float(-logits.log_softmax(dim=1).amax(dim=1).mean()))
    assert gaps[1] > 1.5 * gaps[0]
    assert doubts[1] < 0.1 * doubts[0]


def test_the_teacher_may_start_as_the_student() -> None:
    seen: list[Tensor] = []

    class Watching(Defense):
        def begin(self, made: Trainer) -> None:
            seen.append(made.module[1].weight.detach().clone())

    config = TrainingConfig(epochs=1, batch_size=16, learning_rate=1e-9, weight_decay=0.0, augment="none")
    for start, equal in (("same", True), ("fresh", False)):
        defense = distill(teacher_start=start)
        trainer(defense, Watching(None), config=config).fit()
        assert defense._teacher is not None
        assert torch.allclose(defense._teacher[1].weight, seen[-1], atol=1e-6) == equal


# public samples -------------------------------------------------------------------------------------------


def test_with_public_labels_the_student_sees_no_private_sample() -> None:
    defense = distill(labels_from="public")
    taken: list[Tensor] = []

    class Watching(Defense):
        def adapt_inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
            taken.append(inputs)
            assert int(labels.max()) < 4
            return inputs

    made = trainer(defense, Watching(None), public=PUBLIC, config=CONFIG.model_copy(update={"epochs": 20}))
    assert made.steps_per_epoch == 8
    made.fit()
    rows = torch.cat(taken[:8]).flatten(1)
    assert len(rows) == len(PUBLIC)
    assert bool(((rows[:, None] == ADAPTER(PUBLIC.samples).flatten(1)).all(dim=2).any(dim=1)).all())
    assert made.scheduler.T_max == 20 * 8
    part = made.split
    assert isinstance(part, PublicSplit)
    assert len(part.labels.unique()) == 4, "labels are the teacher's"
    assert utility(made.module) > 0.8


def test_without_public_samples_it_is_refused() -> None:
    for public in (None, ToySplit(PUBLIC.samples[:0], PUBLIC.labels[:0])):
        with pytest.raises(ConfigError, match="no labelled samples"):
            trainer(distill(labels_from="public"), public=public)


# a training that was killed -------------------------------------------------------------------------------


@pytest.mark.parametrize("labels_from", ["private", "public"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Any, labels_from: str) -> None:
    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state: Any) -> None:
            super().offer(state)
            if state()["epoch"] == 2:
                raise KilledError

    def made(runtime: Runtime) -> Trainer:
        defense = distill(labels_from=labels_from, hard_weight=0.3)
        return trainer(defense, config=SHORT, runtime=runtime, public=PUBLIC)

    whole = made(CPU)
    whole.fit()
    path = tmp_path / "state"
    with pytest.raises(KilledError):
        made(CPU.with_checkpoints(Stopping(path, 0))).fit()
    again = made(CPU.with_checkpoints(Checkpoints(path)))
    again.fit()
    assert same(again.module, whole.module)
    assert not same(whole.module, network())


def test_the_teachers_training_leaves_the_students_checkpoint_alone(tmp_path: Any) -> None:
    path = tmp_path / "state"
    made = trainer(distill(), config=SHORT, runtime=CPU.with_checkpoints(Checkpoints(path, 1e9)))
    made.fit()
    assert not path.exists()
    path = tmp_path / "often"
    made = trainer(distill(), config=SHORT, runtime=CPU.with_checkpoints(Checkpoints(path, 0)))
    made.fit()
    state = Checkpoints(path).load()
    assert state is not None
    assert set(state["defenses"][0]) == {"teacher"}


@pytest.mark.parametrize(
    "options", [{"temperature": 0.5}, {"hard_weight": 1.0}, {"labels_from": "holdout"}, {"teacher_temperature": 0}]
)
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        distill(**options)
