"""The training loop: defenses in order, resumable bit for bit, honest about divergence."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from micore.configs import make_config
from micore.contracts import Defense, NoConfig
from micore.errors import ConfigError, ModelError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig, accuracy, predict, set_aside
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.devices import pretend_accelerator
from micore.testing.toys import ToyAdapter, ToyModality, ToySplit, planted

CONFIG = TrainingConfig(epochs=3, batch_size=5, augment="light")
SPLIT = ToySplit(*planted(4, 4, 4, Random(0)))
ADAPTER = ToyAdapter(InputSpec(shape=(1, 4, 4), mean=(0.5,), std=(0.5,)))


def network(seed: int = 0) -> nn.Module:
    with Runtime(device=torch.device("cpu"), seed=seed).seeded("net"):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4)
        )


def trainer(config: TrainingConfig = CONFIG, **changes) -> Trainer:
    given = {"adapter": ADAPTER, "augment": ToyModality().augment, "runtime": Runtime.create("cpu", seed=5)}
    module = changes.pop("module", None) or network()
    split = changes.pop("split", SPLIT)
    return Trainer(module, split, config=config, **{**given, **changes})


def weights(made: Trainer) -> list[torch.Tensor]:
    return [tensor.detach().cpu().clone() for tensor in made.module.state_dict().values()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


CONFIGS = {
    "adam": CONFIG,
    "sgd": CONFIG.model_copy(update={"optimizer": "sgd"}),
    "constant": CONFIG.model_copy(update={"schedule": "constant", "clip_norm": 0.1}),
    "plain sgd": CONFIG.model_copy(update={"optimizer": "sgd", "momentum": 0.0, "augment": "none"}),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, name, stop):
    whole = trainer(CONFIGS[name])
    whole.fit()

    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state):
            super().offer(state)
            if state()["epoch"] == stop:
                raise KilledError

    path = tmp_path / "state"
    with pytest.raises(KilledError):
        trainer(CONFIGS[name], runtime=Runtime.create("cpu", seed=5, checkpoints=Stopping(path, 0))).fit()
    going_on = trainer(
        CONFIGS[name], module=network(seed=9), runtime=Runtime.create("cpu", seed=5, checkpoints=Checkpoints(path))
    )
    epochs = []
    original = going_on._epoch
    going_on._epoch = lambda epoch: (epochs.append(epoch), original(epoch))[1]
    going_on.fit()
    assert epochs == list(range(stop, 3))
    assert equal(weights(going_on), weights(whole))
    assert not equal(weights(trainer(CONFIGS[name])), weights(whole)), "training changed something"


def test_the_global_stream_is_neither_read_nor_changed():
    before = torch.get_rng_state()
    one = trainer()
    one.fit()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        other = trainer()
        other.fit()
    assert equal(weights(one), weights(other))
    third = trainer(purpose="another")
    third.fit()
    assert not equal(weights(one), weights(third))


def test_an_accelerator_gives_the_same_model():
    here = trainer()
    here.fit()
    with pretend_accelerator():
        there = trainer(runtime=Runtime.create("cuda", seed=5))
        there.fit()
        assert next(there.module.parameters()).device.type == "cuda"
        found = weights(there)
        logits = predict(there.module, SPLIT.take, len(SPLIT), ADAPTER, there.runtime, batch_size=5)
        assert logits.device.type == "cpu"
    assert equal(weights(here), found)


class Recording(Defense):
    """Notes every hook under its name."""

    Config = NoConfig

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def adapt_data(self, split):
        self.log.append(f"{self.name} data")
        return ToySplit(split.samples[:-1], split.labels[:-1])

    def adapt_training(self, made):
        self.log.append(f"{self.name} training")
        made.optimizer = torch.optim.SGD(made.module.parameters(), lr=0.1)
        made.scheduler = torch.optim.lr_scheduler.ConstantLR(made.optimizer, factor=1.0)

    def training_loss(self, module, batch, task_loss):
        self.log.append(f"{self.name} before")
        loss = task_loss()
        self.log.append(f"{self.name} after")
        return loss * 2 if self.name == "a" else loss + 1


def test_defenses_compose_in_order():
    log: list[str] = []
    made = trainer(defenses=[Recording("a", log), Recording("b", log)])
    assert log == ["a data", "b data", "a training", "b training"]
    assert len(made.split) == len(SPLIT) - 2
    assert made.steps_per_epoch == 3
    assert isinstance(made.optimizer, torch.optim.SGD)
    log.clear()
    made.module.eval()
    batch = TrainingBatch(made.module, ADAPTER(SPLIT.samples[:3]), SPLIT.labels[:3], 0, 1)
    plain = functional.cross_entropy(made.module(batch.inputs), batch.labels)
    assert torch.allclose(made.loss(batch), 2 * plain + 1), "the later defense wraps the earlier"
    assert log == ["b before", "a before", "a after", "b after"]


def test_a_defense_that_leaves_the_task_loss_out_makes_no_forward_pass():
    class Replacing(Recording):
        def training_loss(self, module, batch, task_loss):
            return next(module.parameters()).sum()

    made = trainer(defenses=[Replacing("a", [])])
    batch = TrainingBatch(made.module, ADAPTER(SPLIT.samples[:3]), SPLIT.labels[:3], 0, 1)
    made.loss(batch)
    assert batch._logits is None


def test_logits_are_computed_once_and_in_float32():
    calls = []

    class Counting(nn.Module):
        def forward(self, inputs):
            calls.append(len(inputs))
            return inputs.half()

    batch = TrainingBatch(Counting(), torch.ones(2, 3), torch.zeros(2), 4, 7)
    assert batch.logits is batch.logits
    assert batch.logits.dtype == torch.float32
    assert calls == [2]
    assert (batch.epoch, batch.epochs) == (4, 7)


def test_logits_of_a_shared_pass_are_taken_once():
    made = trainer()
    batch = TrainingBatch(made.module, ADAPTER(SPLIT.samples[:3]), SPLIT.labels[:3], 0, 1)
    assert not batch.passed
    with pytest.raises(ModelError, match="2 rows of logits for a batch of 3"):
        batch.give(torch.zeros(2, 4))
    given = torch.full((3, 4), 0.5, dtype=torch.float16)
    batch.give(given)
    assert batch.passed
    assert batch.logits.dtype == torch.float32
    assert torch.equal(batch.logits, given.float())
    with pytest.raises(ModelError, match="was made already"):
        batch.give(given)


def test_every_sample_is_seen_once_an_epoch_except_a_batch_of_one():
    made = trainer(CONFIG.model_copy(update={"augment": "none"}))
    seen = torch.cat([labels for _, labels in made.batches(0)])
    assert len(seen) == 15, "16 samples in batches of 5 leave one over, which batch normalisation cannot use"
    single = trainer(split=ToySplit(SPLIT.samples[:1], SPLIT.labels[:1]))
    assert len(list(single.batches(0))) == 1
    orders = [torch.cat([inputs for inputs, _ in made.batches(epoch)]) for epoch in (0, 1, 0)]
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])


def test_divergence_is_an_error():
    class Exploding(Recording):
        def training_loss(self, module, batch, task_loss):
            return task_loss() * (float("inf") if batch.epoch == 1 else 1.0)

    with pytest.raises(ModelError, match="diverged in epoch 2") as caught:
        trainer(defenses=[Exploding("a", [])]).fit()
    assert "learning_rate" in caught.value.hint


def test_training_needs_labels():
    with pytest.raises(ModelError, match="needs labels"):
        trainer(split=ToySplit(SPLIT.samples)).fit()


def test_mixed_precision_trains():
    made = trainer(runtime=Runtime.create("cpu", "bf16", seed=5))
    before = weights(made)
    made.fit()
    assert not equal(before, weights(made))
    assert all(parameter.dtype == torch.float32 for parameter in made.module.parameters())


def test_frozen_parameters_stay():
    module = network()
    module[1].requires_grad_(False)
    before = module[1].weight.detach().clone()
    made = trainer(module=module)
    made.fit()
    assert torch.equal(module[1].weight, before)


def test_clipping_bounds_the_step():
    config = CONFIG.model_copy(
        update={"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "schedule": "constant",
                "weight_decay": 0.0, "clip_norm": 1e-3, "epochs": 1, "batch_size": 16}
    )  # fmt: skip
    made = trainer(config)
    before = [parameter.detach().clone() for parameter in made.module.parameters()]
    made.fit()
    moved = [after.detach() - old for after, old in zip(made.module.parameters(), before, strict=True)]
    length = torch.cat([step.flatten() for step in moved]).norm()
    assert 0.9e-3 < length < 1.1e-3


def test_predict_and_accuracy():
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 4)).train()
    runtime = Runtime.create("cpu")
    logits = predict(module, SPLIT.take, len(SPLIT), ADAPTER, runtime, batch_size=3)
    assert not module.training
    assert torch.allclose(logits, module(ADAPTER(SPLIT.samples)), atol=1e-6)
    assert not logits.requires_grad
    assert accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"batch_size": 1}, {"momentum": 1.0}, {"augment": "wild"}, {"lr": 1}]
)
def test_settings_are_checked(values):
    with pytest.raises(ConfigError, match="training"):
        make_config(TrainingConfig, values, "training")


# the epoch that is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_a_share_of_every_class_is_set_aside(share):
    kept, aside = set_aside(SPLIT, share, Random(1))
    assert aside is not None
    assert kept.labels is not None
    assert aside.labels is not None
    assert aside.labels.bincount().tolist() == [max(1, round(4 * share))] * 4
    assert len(kept) + len(aside) == len(SPLIT)
    together = torch.cat([kept.take(range(len(kept))), aside.take(range(len(aside)))])
    assert sorted(together.flatten(1).sum(1).tolist()) == sorted(SPLIT.samples.flatten(1).sum(1).tolist())
    again = set_aside(SPLIT, share, Random(1))[1]
    assert again is not None
    assert torch.equal(again.take([0]), aside.take([0]))


def test_nothing_is_set_aside_of_a_class_of_one():
    assert set_aside(SPLIT, 0, Random(1)) == (SPLIT, None)
    with pytest.raises(ModelError, match="class 1 has one sample"):
        set_aside(ToySplit(SPLIT.samples[:3], torch.tensor([0, 0, 1])), 0.2, Random(1))


def kept_aside(**changes) -> Trainer:
    part, validation = set_aside(SPLIT, 0.25, Random(1))
    return trainer(CONFIG.model_copy(update={"epochs": 8}), split=part, validation=validation, **changes)


def watched(made: Trainer) -> list[tuple[float, list[torch.Tensor]]]:
    """Train and return the accuracy on what was kept aside, and the weights, after each epoch."""
    seen = []
    original = made._validate

    def validate(epoch: int) -> None:
        original(epoch)
        part = made.validation
        assert part is not None
        assert part.labels is not None
        seen.append((accuracy(predict(made.module, part.take, len(part), ADAPTER, made.runtime), part.labels),
                     weights(made)))  # fmt: skip

    made._validate = validate
    made.fit()
    return seen


def test_the_best_epoch_on_what_was_kept_aside_is_kept():
    made = kept_aside()
    seen = watched(made)
    best = max(found for found, _ in seen)
    assert min(found for found, _ in seen) < best, "no epoch differs: the test shows nothing"
    assert seen[made.kept_epoch - 1][0] == best
    assert all(found < best for found, _ in seen[made.kept_epoch :]), "of equals the later one"
    assert equal(weights(made), seen[made.kept_epoch - 1][1])


def test_keeping_aside_changes_no_epoch():
    """The choice looks at what was kept aside, and the training does not."""
    plain, chosen = kept_aside(), kept_aside()
    plain.validation = None
    plain.fit()
    assert equal(watched(chosen)[-1][1], weights(plain))
    assert plain.kept_epoch == 8


class Late(Defense):
    """Is complete in the last two epochs only."""

    def is_complete(self, epoch: int, epochs: int) -> bool:
        return epoch >= epochs - 2


def test_an_epoch_before_the_defense_is_complete_is_not_kept():
    assert kept_aside(defenses=[Late(NoConfig())]).kept_epoch == 0
    made = kept_aside(defenses=[Late(NoConfig())])
    made.fit()
    assert made.kept_epoch in (7, 8)


class Counting(Defense):
    """Begins once, changes the inputs, and counts its steps in a state that must survive."""

    steps = 0
    begun = 0

    def begin(self, trainer: Trainer) -> None:
        self.begun += 1

    def adapt_inputs(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return inputs + 0.01 * self.steps * torch.randn_like(inputs)

    def training_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def resume(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def test_a_defense_goes_on_where_a_killed_training_stopped(tmp_path):
    whole = kept_aside(defenses=[Counting(NoConfig())])
    whole.fit()

    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state):
            super().offer(state)
            if state()["epoch"] == 5:
                raise KilledError

    path = tmp_path / "state"
    with pytest.raises(KilledError):
        kept_aside(
            defenses=[Counting(NoConfig())], runtime=Runtime.create("cpu", seed=5, checkpoints=Stopping(path, 0))
        ).fit()
    counting = Counting(NoConfig())
    going_on = kept_aside(
        defenses=[counting], module=network(seed=9),
        runtime=Runtime.create("cpu", seed=5, checkpoints=Checkpoints(path)),
    )  # fmt: skip
    going_on.fit()
    assert equal(weights(going_on), weights(whole))
    assert (counting.begun, counting.steps) == (0, whole.defenses[0].steps)
    assert going_on.kept_epoch == whole.kept_epoch
