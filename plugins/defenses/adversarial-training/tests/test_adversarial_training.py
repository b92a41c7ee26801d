"""The search for the worst input against closed forms, what it leaves alone, and what training on it does."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_adversarial_training.defense import AdversarialTraining
from mi_defense_adversarial_training.perturbation import Norm, Units, answering, perturbed
from micore.configs import make_config
from micore.contracts import Defense
from micore.errors import ConfigError, ModelError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingConfig, accuracy
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.toys import ToyAdapter, ToyModality, ToySplit, planted

CPU = Runtime(device=torch.device("cpu"), seed=5)
SPLIT = ToySplit(*planted(4, 24, 8, Random(0)))
SPEC = InputSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.25,))
COLOUR = InputSpec(shape=(3, 2, 2), mean=(0.5, 0.4, 0.3), std=(0.2, 0.5, 0.1))
CONFIG = TrainingConfig(epochs=12, batch_size=24, learning_rate=1e-2, augment="none")


def adversarial(**options: Any) -> AdversarialTraining:
    return AdversarialTraining(make_config(AdversarialTraining.Config, options, "adversarial-training"))


def network(seed: int = 0) -> nn.Module:
    with Runtime(device=torch.device("cpu"), seed=seed).seeded("network"):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(512, 4),
        )


def trainer(*defenses: Defense, runtime: Runtime = CPU, config: TrainingConfig = CONFIG, **changes: Any) -> Trainer:
    given_ = {"adapter": ToyAdapter(SPEC), "augment": ToyModality().augment, **changes}
    return Trainer(network(), SPLIT, config=config, defenses=defenses, runtime=runtime, **given_)


def colours(n: int, seed: int = 0) -> Tensor:
    """Return model inputs (n, 3, 2, 2) of canonical values in [0, 1]."""
    values = torch.rand((n, 3, 2, 2), generator=torch.Generator().manual_seed(seed))
    return (values - _column(COLOUR.mean)) / _column(COLOUR.std)


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


def canonical(inputs: Tensor) -> Tensor:
    return inputs * _column(COLOUR.std) + _column(COLOUR.mean)


# the search -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]), epsilon=st.floats(1e-3, 2), steps=st.integers(1, 4),
    size=st.floats(1e-3, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_changes_stay_in_the_ball_and_in_the_range(
    norm: Norm, epsilon: float, steps: int, size: float, seed: int
) -> None:
    inputs = colours(5, seed)
    weights = torch.randn((5, 12), generator=torch.Generator().manual_seed(seed + 1))
    with CPU.seeded("ball", seed):
        found = perturbed(
            inputs, lambda moved: (moved.flatten(1) * weights).sum().sin(), norm=norm, epsilon=epsilon, steps=steps,
            step_size=size, units=Units.of(COLOUR, inputs),
        )  # fmt: skip
    change = (canonical(found) - canonical(inputs)).flatten(1)
    lengths = change.abs().amax(dim=1) if norm == "linf" else change.norm(dim=1)
    assert float(lengths.max()) <= epsilon * (1 + 1e-4) + 1e-6
    assert float(canonical(found).min()) >= -1e-5
    assert float(canonical(found).max()) <= 1 + 1e-5
    assert not found.requires_grad


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_for_a_linear_loss_it_finds_the_worst_input(norm: Norm) -> None:
    """The maximum of ``w . x`` over a ball around x is at ``epsilon sign(w)`` or ``epsilon w / |w|``."""
    inputs = torch.full((3, 3, 2, 2), 0.5)
    inputs = (inputs - _column(COLOUR.mean)) / _column(COLOUR.std)
    weights = torch.randn((3, 3, 2, 2), generator=torch.Generator().manual_seed(2))
    with CPU.seeded("linear"):
        found = perturbed(
            inputs, lambda moved: (moved * weights).sum(), norm=norm, epsilon=0.1, steps=60, step_size=0.1,
            units=Units.of(COLOUR, inputs),
        )  # fmt: skip
    slope = weights / _column(COLOUR.std)  # of the loss in canonical units
    worst = slope.sign() if norm == "linf" else slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(canonical(found) - canonical(inputs), 0.1 * worst, atol=2e-4)


@pytest.mark.parametrize(("norm", "dimensions"), [("linf", 1), ("l2", 12)])
def test_it_begins_anywhere_in_the_ball(norm: Norm, dimensions: int) -> None:
    """With a step of no size only the start is left: the d-th power of the radius is uniform in d dimensions."""
    inputs = torch.zeros(4000, 3, 2, 2)
    with CPU.seeded("start"):
        found = perturbed(
            inputs, lambda moved: moved.sum(), norm=norm, epsilon=0.5, steps=1, step_size=1e-9, units=Units()
        )
    radius = (found.flatten() if norm == "linf" else found.flatten(1).norm(dim=1)).abs() / 0.5
    uniform = radius.double() ** dimensions
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(uniform.std()) == pytest.approx(12**-0.5, abs=0.02)


def test_inputs_outside_the_range_are_not_pushed_further_out() -> None:
    inputs = torch.tensor([[[[-4.0, 0.0, 4.0, 1.9]]]])  # [-2, 2] is canonical [0, 1]
    with CPU.seeded("range"):
        up, down = (
            perturbed(
                inputs, lambda moved, s=sign: s * moved.sum(), norm="linf", epsilon=0.2, steps=3, step_size=0.4,
                units=Units.of(SPEC, inputs),
            )
            for sign in (1, -1)
        )  # fmt: skip
    assert torch.allclose(up, torch.tensor([[[[-3.2, 0.8, 4.0, 2.0]]]]), atol=1e-5)
    assert torch.allclose(down, torch.tensor([[[[-4.0, -0.8, 3.2, 1.1]]]]), atol=1e-5)


def test_without_a_spec_the_inputs_own_units_are_taken() -> None:
    inputs = torch.full((1, 1, 2, 2), 7.0)
    with CPU.seeded("units"):
        found = perturbed(
            inputs, lambda moved: moved.sum(), norm="linf", epsilon=0.25, steps=1, step_size=1.0,
            units=Units.of(None, inputs),
        )  # fmt: skip
    assert torch.equal(found, inputs + 0.25)
    defense = adversarial()
    trainer(defense, adapter=lambda samples: samples)
    assert defense.facts() == {"epsilon_units": "model input"}
    trainer(defense)
    assert defense.facts() == {"epsilon_units": "canonical"}


def test_each_layer_gets_its_own_mode_back() -> None:
    module = network().train()
    module[1].eval()
    inside: list[bool] = []
    module[4].register_forward_hook(lambda *_: inside.extend(layer.training for layer in module.modules()))
    with pytest.raises(RuntimeError), answering(module):
        module(torch.zeros(2, 1, 3, 3))  # fails behind the hook, in the last layer
    assert inside == [False] * 7
    assert [layer.training for layer in module] == [True, False, True, True, True, True]
    assert module.training


# in a training --------------------------------------------------------------------------------------------


def test_the_search_leaves_the_network_alone_and_raises_the_loss() -> None:
    defense = adversarial(epsilon=0.1)
    made = trainer(defense)
    before = {name: tensor.clone() for name, tensor in made.module.state_dict().items()}
    inputs, labels = made.adapter(SPLIT.take(range(0, 96, 4))), SPLIT.labels[::4]
    made.module.train()
    with CPU.seeded("search"):
        found = defense.adapt_inputs(inputs, labels)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.module.state_dict().items())
    assert all(parameter.grad is None for parameter in made.module.parameters())
    assert made.module.training
    made.module.eval()
    losses = [functional.cross_entropy(made.module(each), labels, reduction="none") for each in (found, inputs)]
    assert bool((losses[0] > losses[1]).all())


def test_the_loss_of_the_training_is_that_of_the_worst_inputs() -> None:
    seen: list[Tensor] = []

    class Watching(Defense):
        def training_loss(self, module: nn.Module, batch: Any, task_loss: Any) -> Tensor:
            seen.append(batch.inputs.clone())
            return task_loss()

    for defenses in ((Watching(None),), (adversarial(epsilon=0.1), Watching(None)), (Watching(None), adversarial())):
        made = trainer(*defenses, config=CONFIG.model_copy(update={"epochs": 1}))
        made.fit()
    plain, worst, other = seen[0], seen[4], seen[8]
    assert plain.shape == worst.shape
    assert float((worst - plain).abs().max()) * 0.25 == pytest.approx(0.1, abs=1e-5)
    assert float((other - plain).abs().max()) * 0.25 == pytest.approx(8 / 255, abs=1e-5)


@cache
def trained(defended: bool) -> nn.Module:
    made = trainer(*([adversarial(epsilon=0.2)] if defended else []))
    made.fit()
    return made.module.eval().requires_grad_(False)


def robust_accuracy(module: nn.Module, epsilon: float) -> float:
    """Return the accuracy on held-out samples under ten steps of an attack."""
    samples, labels = planted(4, 40, 8, Random(9))
    inputs = ToyAdapter(SPEC)(samples)
    if epsilon:
        with CPU.seeded("robust"):
            inputs = perturbed(
                inputs, lambda moved: functional.cross_entropy(module(moved), labels, reduction="sum"), norm="linf",
                epsilon=epsilon, steps=10, step_size=epsilon / 4, units=Units.of(SPEC, inputs),
            )  # fmt: skip
    return accuracy(module(inputs), labels)


def test_the_model_is_robust_afterwards_and_useful() -> None:
    assert robust_accuracy(trained(True), 0.0) > 0.95
    assert robust_accuracy(trained(False), 0.0) > 0.95
    assert robust_accuracy(trained(True), 0.25) > robust_accuracy(trained(False), 0.25) + 0.2


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Any) -> None:
    config = CONFIG.model_copy(update={"epochs": 3})

    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state: Any) -> None:
            super().offer(state)
            if state()["epoch"] == 2:
                raise KilledError

    whole = trainer(adversarial(), config=config)
    whole.fit()
    path = tmp_path / "state"
    with pytest.raises(KilledError):
        trainer(adversarial(), config=config, runtime=CPU.with_checkpoints(Stopping(path, 0))).fit()
    again = trainer(adversarial(), config=config, runtime=CPU.with_checkpoints(Checkpoints(path)))
    again.fit()
    one, other = again.module.state_dict(), whole.module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


# bad input ------------------------------------------------------------------------------------------------


def test_tokens_are_refused() -> None:
    defense = adversarial()
    trainer(defense)
    with pytest.raises(ModelError, match="not made of real numbers"):
        defense.adapt_inputs(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("options", [{"norm": "l1"}, {"epsilon": 0}, {"steps": 0}, {"step_size": -1.0}])
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        adversarial(**options)
