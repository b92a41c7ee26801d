"""The mechanism against its definition, its accounting, and what it refuses."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from opacus.accountants import RDPAccountant
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_dp_sgd.accounting import epsilon_of, noise_for
from mi_defense_dp_sgd.defense import DifferentiallyPrivate
from mi_defense_dp_sgd.poisson import PoissonSampler
from mi_defense_dp_sgd.structure import without_mixing
from micore.artifacts import PluginUse
from micore.configs import make_config
from micore.contracts import Defense, Fitting
from micore.errors import ConfigError, ModelError, UsageError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig
from micore.models import load_defenses
from micore.registry import Registry
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.lab import Lab, train_setting
from micore.testing.toys import ToyAdapter, ToyModality, ToySplit, planted

CPU = Runtime(device=torch.device("cpu"), seed=5)
SPLIT = ToySplit(*planted(4, 10, 6, Random(0)))
SPEC = InputSpec(shape=(1, 6, 6), mean=(0.5,), std=(0.5,))
SGD = TrainingConfig(
    epochs=2, batch_size=8, optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0, augment="none",
    schedule="constant",
)  # fmt: skip


def dp_sgd(**options: Any) -> DifferentiallyPrivate:
    return DifferentiallyPrivate(make_config(DifferentiallyPrivate.Config, options, "dp-sgd"))


def network(*extra: nn.Module) -> nn.Module:
    with CPU.seeded("network"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), *extra, nn.Flatten(), nn.Linear(64, 4)
        )


def trainer(
    *defenses: Defense, module: nn.Module | None = None, config: TrainingConfig = SGD, **changes: Any
) -> Trainer:
    module = network() if module is None else module
    for defense in defenses:
        module = defense.adapt_model(module)
    given = {"adapter": ToyAdapter(SPEC), "augment": ToyModality().augment, "runtime": CPU, **changes}
    return Trainer(module, SPLIT, config=config, defenses=defenses, **given)


def step(made: Trainer, rows: Sequence[int], size: int | None = None) -> None:
    """Take one step on these rows, as if the sampler had drawn ``size`` of them."""
    made.sampler.sizes.append(len(rows) if size is None else size)  # type: ignore[attr-defined]
    labels = SPLIT.labels
    assert labels is not None
    made.module.train()
    made.step(TrainingBatch(made.module, made.adapter(SPLIT.take(rows)), labels[list(rows)], 0, 2))


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


# the step -------------------------------------------------------------------------------------------------


def test_without_noise_and_clipping_it_is_a_plain_step() -> None:
    private = trainer(dp_sgd(noise_multiplier=0, clip=1e9))
    plain = copy.deepcopy(network())
    plain = without_mixing(plain).train()
    assert torch.equal(flat(plain), flat(private.module))
    rows = range(8)
    functional.cross_entropy(plain(ToyAdapter(SPEC)(SPLIT.take(rows))), SPLIT.labels[:8]).backward()
    expected = flat(plain) - 0.1 * torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    step(private, rows)
    assert torch.allclose(flat(private.module), expected, atol=1e-6)
    assert not torch.allclose(flat(private.module), flat(plain), atol=1e-4)


def test_each_samples_gradient_is_clipped_before_they_are_added() -> None:
    clip, rows = 0.05, [0, 11, 22]
    private = trainer(dp_sgd(noise_multiplier=0, clip=clip))
    before = flat(private.module)
    total = torch.zeros_like(before)
    reference = copy.deepcopy(without_mixing(network())).train()
    for row in rows:  # batches of one: an oracle without hooks
        reference.zero_grad()
        functional.cross_entropy(reference(ToyAdapter(SPEC)(SPLIT.take([row]))), SPLIT.labels[[row]]).backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
        assert gradient.norm() > clip
        total += gradient * clip / gradient.norm()
    step(private, rows)
    assert torch.allclose(flat(private.module), before - 0.1 * total / 8, atol=1e-6)


class Residual(nn.Module):
    """Adds in place to what a layer gives, and uses one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(36, 36), nn.Linear(36, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        flattened = inputs.flatten(1)
        hidden = self.first(flattened)
        hidden += flattened
        return self.second(self.first(hidden.relu_()))


def test_outputs_may_be_changed_in_place_and_layers_used_twice() -> None:
    made = trainer(dp_sgd(noise_multiplier=0, clip=1e9), module=Residual())
    hookless, rows = Residual(), range(8)
    hookless.load_state_dict(made.module.state_dict())
    functional.cross_entropy(hookless(ToyAdapter(SPEC)(SPLIT.take(rows))), SPLIT.labels[:8]).backward()
    expected = flat(hookless) - 0.1 * torch.cat([parameter.grad.flatten() for parameter in hookless.parameters()])
    step(made, rows)
    assert torch.allclose(flat(made.module), expected, atol=1e-6)


def summed_noise(private: Trainer, draws: int) -> Tensor:
    """Return what steps on empty batches add to the summed gradient."""
    noises = []
    with CPU.seeded("noise"):
        for _ in range(draws):
            before = flat(private.module)
            step(private, [0], size=0)
            noises.append((before - flat(private.module)) * 8 / 0.1)
    return torch.cat(noises)


@pytest.mark.parametrize(("sigma", "clip"), [(1.5, 2.0), (0.7, 0.1)])
def test_the_noise_is_sigma_times_clip_and_an_empty_batch_is_noise_alone(sigma: float, clip: float) -> None:
    noise = summed_noise(trainer(dp_sgd(noise_multiplier=sigma, clip=clip)), 60)
    assert len(noise) > 15_000
    assert float(noise.std()) == pytest.approx(sigma * clip, rel=0.03)
    assert abs(float(noise.mean())) < 4 * sigma * clip / math.sqrt(len(noise))


def test_an_empty_batch_without_noise_changes_nothing() -> None:
    private = trainer(dp_sgd(noise_multiplier=0))
    before = flat(private.module)
    step(private, [0], size=0)
    assert torch.equal(flat(private.module), before)


def test_batches_are_poisson_samples() -> None:
    sampler = PoissonSampler(0.2, 400)
    batches = sampler(torch.zeros(50, dtype=torch.int64), 10, Random(3))
    sizes = torch.tensor(list(sampler.sizes), dtype=torch.float64)
    assert len(batches) == 400
    assert float(sizes.mean()) == pytest.approx(10, abs=4 * math.sqrt(8 / 400))
    assert float(sizes.var()) == pytest.approx(8, rel=0.3)
    assert all(len(rows.unique()) == len(rows) for rows in batches)
    often = torch.bincount(torch.cat(batches), minlength=50)
    assert often.min() > 40
    assert often.max() < 125


def test_an_epoch_with_empty_batches_trains() -> None:
    few = PoissonSampler(0.001, 5)
    assert [len(rows) for rows in few(torch.zeros(3), 2, Random(0))] == [1] * 5
    assert list(few.sizes) == [0] * 5
    private = trainer(dp_sgd(noise_multiplier=0), config=SGD.model_copy(update={"batch_size": 2}))
    private.sampler.rate = 0.0  # type: ignore[attr-defined]
    before = flat(private.module)
    private.fit()
    assert torch.equal(flat(private.module), before)


# accounting -----------------------------------------------------------------------------------------------


def test_the_budget_is_what_opacus_counts() -> None:
    defense = dp_sgd(noise_multiplier=1.1)
    made = trainer(defense)
    made.fit()
    oracle = RDPAccountant()
    for _ in range(10):
        oracle.step(noise_multiplier=1.1, sample_rate=0.2)
    facts = defense.facts()
    assert facts["epsilon"] == pytest.approx(oracle.get_epsilon(1e-5), rel=1e-9)
    assert (facts["steps"], facts["sample_rate"], facts["delta"]) == (10, 0.2, 1e-5)
    assert "record" in facts["unit"]


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_a_target_is_kept_and_nearly_spent(accountant: str) -> None:
    defense = dp_sgd(epsilon=3.0, accountant=accountant)
    trainer(defense).fit()
    assert 2.9 < defense.facts()["epsilon"] <= 3.0


def test_a_full_batch_is_the_gaussian_mechanism() -> None:
    """At q = 1 Renyi DP of order a is T a / (2 sigma^2), in closed form; the conversion is Canonne et al.'s."""
    sigma, steps, delta = 4.0, 20, 1e-5
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    exact = min(
        steps * a / (2 * sigma**2) + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders
    )
    assert epsilon_of([(sigma, 1.0, steps)], delta, "rdp") == pytest.approx(exact, rel=1e-9)
    assert noise_for(exact, delta, 1.0, steps, "rdp") == pytest.approx(sigma, rel=0.01)


def test_no_noise_is_no_guarantee() -> None:
    defense = dp_sgd(noise_multiplier=0)
    trainer(defense).fit()
    assert defense.facts()["epsilon"] is None


def test_delta_follows_the_number_of_records() -> None:
    class Many(Defense):
        per_sample_loss = True

        def adapt_data(self, split: Any) -> Any:
            return ToySplit(split.samples.repeat(5000, 1, 1, 1), split.labels.repeat(5000))

    defense = dp_sgd(noise_multiplier=1.0)
    trainer(Many(None), defense)
    defense._accountant.history = [(1.0, 0.1, 1)]
    assert defense.facts()["delta"] == pytest.approx(1 / (1.1 * 200_000))


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="out of reach"):
        trainer(dp_sgd(epsilon=1e-9))


# the network ----------------------------------------------------------------------------------------------


def test_batch_normalisation_becomes_group_normalisation_in_the_same_network() -> None:
    module = network()
    module[1].bias.requires_grad_(False)
    adapted = dp_sgd().adapt_model(module)
    assert adapted is module
    assert isinstance(adapted[1], nn.GroupNorm)
    assert adapted[1].num_groups == 4
    assert not adapted[1].bias.requires_grad
    assert adapted[1].weight.requires_grad
    assert not adapted[2].inplace


class OwnNorm(nn.BatchNorm2d):
    """A type that nothing replaces."""


@pytest.mark.parametrize(
    "layer", [OwnNorm(4), nn.InstanceNorm2d(4, track_running_stats=True, affine=True)], ids=["batch", "instance"]
)
def test_layers_that_keep_private_statistics_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ModelError, match="statistics of the private samples"):
        dp_sgd().adapt_model(network(layer))


def test_layers_that_come_later_are_refused_too() -> None:
    class Adding(Defense):
        def adapt_model(self, module: nn.Module) -> nn.Module:
            return nn.Sequential(nn.BatchNorm2d(1), module)

    with pytest.raises(ModelError, match="after the defenses that add layers"):
        trainer(dp_sgd(), Adding(None))


class Unused(nn.Module):
    """Uses a layer's weight without calling the layer, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs.flatten(1), self.layer.weight, self.layer.bias)


def test_a_layer_that_is_not_called_is_refused() -> None:
    with pytest.raises(ModelError, match="not one gradient for each"):
        trainer(dp_sgd(noise_multiplier=1.0), module=Unused()).fit()


def test_the_network_is_clean_after_the_training() -> None:
    defense = dp_sgd(noise_multiplier=0.5)
    made = trainer(defense)
    names = set(without_mixing(network()).state_dict())
    made.fit()
    assert set(made.module.state_dict()) == names
    defense.fit(Fitting(
        module=made.module, reference=SPLIT, reference_is_fresh=False, public=None, n_classes=4, adapter=made.adapter,
        answer=lambda samples: samples, runtime=CPU,
    ))  # fmt: skip
    hooks = [
        hooks for layer in made.module.modules() for hooks in (layer._forward_hooks, layer._backward_hooks) if hooks
    ]
    assert not hooks
    assert not any(hasattr(parameter, "grad_sample") for parameter in made.module.parameters())
    inputs = made.adapter(SPLIT.take(range(2))).requires_grad_()
    made.module.train()(inputs).sum().backward()  # an attack's gradient passes


# what is refused ------------------------------------------------------------------------------------------


class Loss(Defense):
    def training_loss(self, module: nn.Module, batch: Any, task_loss: Any) -> Tensor:
        return task_loss()


class Mixing(Defense):
    def adapt_inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return (inputs + inputs.flip(0)) / 2


class Pretrained(Defense):
    def begin(self, trainer: Trainer) -> None:
        pass


@pytest.mark.parametrize("other", [Loss, Mixing, Pretrained])
@pytest.mark.parametrize("first", [True, False])
def test_defenses_that_may_couple_samples_are_refused(other: type[Defense], first: bool) -> None:
    pair = [dp_sgd(noise_multiplier=1.0), other(None)]
    with pytest.raises(ConfigError, match=f"combined with {other.__name__}.*guarantee would not hold"):
        trainer(*(pair if first else reversed(pair)))


def test_a_loss_of_single_samples_is_allowed() -> None:
    kind = pytest.importorskip("mi_defense_neg_label_smoothing.defense").NegativeLabelSmoothing
    smoothing = kind(kind.Config())
    for pair in ((dp_sgd(noise_multiplier=0.5), smoothing), (smoothing, dp_sgd(noise_multiplier=0.5))):
        trainer(*pair).fit()


def test_a_loss_that_claims_too_much_is_caught_by_its_gradients() -> None:
    class Doubling(Defense):
        per_sample_loss = True

        def training_loss(self, module: nn.Module, batch: Any, task_loss: Any) -> Tensor:
            return functional.cross_entropy(module(batch.inputs.repeat(2, 1, 1, 1)), batch.labels.repeat(2))

    with pytest.raises(ModelError, match="not one gradient for each"):
        trainer(dp_sgd(noise_multiplier=1.0), Doubling(None)).fit()


def test_another_optimiser_in_its_place_is_refused() -> None:
    class Own(Defense):
        def adapt_training(self, made: Trainer) -> None:
            made.optimizer = torch.optim.SGD(made.module.parameters(), 0.1)

    with pytest.raises(ConfigError, match="replaces the batches or the optimiser"):
        trainer(dp_sgd(noise_multiplier=1.0), Own(None)).fit()


def test_validation_and_clipping_of_batches_are_refused() -> None:
    with pytest.raises(ConfigError, match="outside the mechanism"):
        trainer(dp_sgd(), validation=SPLIT)
    with pytest.raises(ConfigError, match="clip_norm"):
        trainer(dp_sgd(), config=SGD.model_copy(update={"clip_norm": 1.0}))


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0}, {"epsilon": 1, "noise_multiplier": 1}, {"noise_multiplier": -1}, {"clip": 0}, {"delta": 1},
     {"accountant": "gdp"}],
)  # fmt: skip
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dp_sgd(**options)


# a training that was killed ---------------------------------------------------------------------------------


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Any) -> None:
    config = TrainingConfig(epochs=3, batch_size=8, augment="light")

    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state: Any) -> None:
            super().offer(state)
            if state()["epoch"] == 2:
                raise KilledError

    def made(checkpoints: Checkpoints) -> tuple[Trainer, DifferentiallyPrivate]:
        defense = dp_sgd(noise_multiplier=0.8)
        return trainer(defense, config=config, runtime=CPU.with_checkpoints(checkpoints)), defense

    whole, spent = made(Checkpoints())
    whole.fit()
    path = tmp_path / "state"
    with pytest.raises(KilledError):
        made(Stopping(path, 0))[0].fit()
    again, counted = made(Checkpoints(path))
    again.fit()
    assert torch.equal(flat(again.module), flat(whole.module))
    assert counted.facts() == spent.facts()


def test_a_training_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(dp_sgd()).fit()


def test_nodes_of_a_graph_are_refused_with_what_protects_edges() -> None:
    """Of a node's features and edges its neighbours' losses hold a part: to clip its own gradient promises nothing."""
    pytest.importorskip("mi_graph.toy")
    lab = Lab(Registry.discover())
    setting = lab.setting("graph", ("structure",))
    with pytest.raises(ModelError, match="nothing would be promised of edges") as caught:
        train_setting(setting, lab.modality("graph"), CPU, "gnn", [dp_sgd(noise_multiplier=1.0)])
    assert caught.value.hint == "gap, edge-rand and lap-graph promise edge differential privacy"
    with pytest.raises(UsageError, match="this one is a gnn") as caught:
        load_defenses(lab.registry, [PluginUse(name="dp-sgd")], "graph", "gnn")
    assert caught.value.hint is not None
    assert "dp-sgd" not in caught.value.hint
