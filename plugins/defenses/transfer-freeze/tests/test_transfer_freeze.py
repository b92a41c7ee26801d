"""What is frozen stays as the public data left it, bit for bit; what is pre-trained on has nothing private."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_defense_transfer_freeze.defense import TransferFreeze, TransferFreezeConfig
from mi_defense_transfer_freeze.layers import count, first_layers, layers_before_the_head
from mi_image.classifiers import SmallCnn, SmallResNet, Vgg16Bn
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from mi_image.transformer import SmallTransformer
from micore.configs import make_config
from micore.contracts import Defense
from micore.errors import ConfigError, ModelError
from micore.inputs import InputSpec
from micore.kit.features import last_linear
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.lab import holdout_accuracy, restored, train_setting, train_toy
from micore.testing.toys import ToyAdapter, ToyModality, ToySplit, planted

CPU = Runtime(device=torch.device("cpu"))


def defense(**options: object) -> TransferFreeze:
    return TransferFreeze(make_config(TransferFreezeConfig, options, "transfer-freeze"))


# which layers are the first -------------------------------------------------------------------------------


def stack() -> nn.Sequential:
    """Return layers with 12, 6, 0, 20, 0 and 15 parameters; the last is the classification layer."""
    return nn.Sequential(
        nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 5), nn.Sequential(nn.ReLU()), nn.Linear(5, 2),
        nn.Softmax(dim=1),
    )  # fmt: skip


@pytest.mark.parametrize(("share", "n"), [(0.1, 1), (1 / 3, 2), (0.5, 3), (0.6, 4), (1.0, 6)])
def test_a_share_of_modules_counts_activations_too(share: float, n: int) -> None:
    module = stack()
    layers = [module[0], module[1], module[2], module[3], module[4][0], module[6]]
    assert layers_before_the_head(module) == layers
    assert first_layers(module, share, "modules") == layers[:n]


@pytest.mark.parametrize(("share", "n"), [(11 / 50, 0), (12 / 50, 1), (18 / 50, 3), (37 / 50, 3), (38 / 50, 6), (1, 6)])
def test_a_share_of_parameters_is_never_exceeded(share: float, n: int) -> None:
    module = stack()
    assert count(module.parameters()) == 50
    assert len(first_layers(module, share, "parameters")) == n


def timm_resnet() -> nn.Module:
    module: nn.Module = pytest.importorskip("timm").create_model("resnet10t", num_classes=4)
    return module


def timm_with_fused_norms() -> nn.Module:
    """Return a network whose normalisations hold their activations as parts."""
    module: nn.Module = pytest.importorskip("timm").create_model("test_efficientnet", num_classes=4)
    return module


@pytest.mark.parametrize(
    "build",
    [lambda: SmallCnn(4), lambda: SmallResNet(4), lambda: SmallTransformer(4), timm_resnet, timm_with_fused_norms],
)
def test_all_layers_together_hold_everything_but_the_head(build: Callable[[], nn.Module]) -> None:
    module = build()
    held = {id(p) for layer in first_layers(module, 1.0, "modules") for p in layer.parameters(recurse=False)}
    head = {id(parameter) for parameter in last_linear(module).parameters()}
    assert held | head == {id(parameter) for parameter in module.parameters()}
    assert not held & head
    buffers = {id(b) for layer in first_layers(module, 1.0, "modules") for b in layer.buffers(recurse=False)}
    assert buffers == {id(buffer) for buffer in module.buffers()}


# a training -----------------------------------------------------------------------------------------------

CONFIG = TrainingConfig(epochs=3, batch_size=8, augment="light", clip_norm=0.5)
PRIVATE = ToySplit(*planted(4, 6, 4, Random(0)))
PUBLIC = ToySplit(*planted(3, 8, 4, Random(1), 0.5))
ADAPTER = ToyAdapter(InputSpec(shape=(1, 4, 4), mean=(0.5,), std=(0.5,)))
OPTIONS = {"share": 0.5, "pretrain_epochs": 2}  # of eight layers: up to the first activation


def network(seed: int = 0) -> nn.Sequential:
    with replace(CPU, seed=seed).seeded("net"):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8),
            nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4),
        )  # fmt: skip


class Snapshot(Defense):
    """Remembers the network as the pre-training leaves it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.weights: dict[str, Tensor] = {}

    def begin(self, trainer: Trainer) -> None:
        self.weights = weights(trainer.module)


class PassingFirst(Defense):
    """Makes the forward pass before any other defense's loss is asked for."""

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        return task_loss() + 1e-3 * batch.logits.square().mean()


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def trainer(*defenses: Defense, module: nn.Module | None = None, **changes: Any) -> Trainer:
    given: dict[str, Any] = {
        "config": CONFIG, "runtime": replace(CPU, seed=5), "public": PUBLIC, "split": PRIVATE, "defenses": defenses,
    }  # fmt: skip
    given |= changes
    split = given.pop("split")
    return Trainer(module or network(), split, adapter=ADAPTER, augment=ToyModality().augment, n_classes=4, **given)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("others", [[], [PassingFirst(None)]])
def test_frozen_parameters_and_statistics_stay_as_the_pre_training_left_them(
    optimizer: str, others: list[Defense]
) -> None:
    start, snapshot = weights(network()), Snapshot()
    made = trainer(defense(**OPTIONS), snapshot, *others, config=CONFIG.model_copy(update={"optimizer": optimizer}))
    made.fit()
    end = weights(made.module)
    kept = {name for name in end if torch.equal(end[name], snapshot.weights[name])}
    assert kept == {name for name in end if name.split(".")[0] in "12"}
    assert {"2.running_mean", "2.running_var", "2.num_batches_tracked"} <= kept
    assert not any(torch.equal(start[name], end[name]) for name in end), "the pre-training changed everything"


def test_pre_training_sees_nothing_private_and_leaves_the_head_alone() -> None:
    found = []
    for split in (PRIVATE, ToySplit(*planted(4, 9, 4, Random(7)))):
        made = trainer(defense(**OPTIONS), split=split)
        head = last_linear(made.module)
        with made.runtime.seeded("train", "begin"):
            made.defenses[0].begin(made)
        assert last_linear(made.module) is head
        found.append(weights(made.module))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    assert all(torch.equal(found[0][name], weights(network())[name]) for name in ("8.weight", "8.bias"))


def test_the_facts_tell_what_is_trained_and_how_well_it_was_pre_trained() -> None:
    shielded = defense(share=0.5, pretrain_epochs=40)
    assert shielded.facts() == {}
    made = trainer(shielded, config=CONFIG.model_copy(update={"learning_rate": 2e-2}))
    made.fit()
    trained = 8 * 8 + 8 + 16 + 8 * 4 + 4
    assert shielded.facts()["trained_share"] == pytest.approx(trained / (trained + 16 * 8 + 8 + 16), abs=1e-4)
    assert shielded.facts()["pretraining_accuracy"] >= 0.8


class KilledError(Exception):
    pass


class Stopping(Checkpoints):
    """Ends the process after the first epoch's state is written."""

    def offer(self, state: Callable[[], Any]) -> None:
        super().offer(state)
        raise KilledError


def test_a_killed_training_goes_on_bit_for_bit_and_does_not_pre_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shielded = trainer(defense(**OPTIONS)), defense(**OPTIONS)
    whole.fit()
    path = tmp_path / "state"
    runtime = replace(CPU, seed=5)
    with pytest.raises(KilledError):
        trainer(defense(**OPTIONS), runtime=runtime.with_checkpoints(Stopping(path, 0))).fit()
    going_on = trainer(shielded, module=network(9), runtime=runtime.with_checkpoints(Checkpoints(path)))
    monkeypatch.setattr(TransferFreeze, "begin", lambda *_: pytest.fail("pre-trained again"))
    going_on.fit()
    end = weights(whole.module)
    assert all(torch.equal(tensor, end[name]) for name, tensor in weights(going_on.module).items())
    assert shielded.facts() == whole.defenses[0].facts()
    assert set(shielded.facts()) == {"trained_share", "pretraining_accuracy"}


def test_the_optimiser_of_another_defense_is_kept() -> None:
    class Own(Defense):
        def adapt_training(self, made: Trainer) -> None:
            made.optimizer = torch.optim.SGD(made.module.parameters(), lr=0.1)

    made = trainer(Own(None), defense(**OPTIONS))
    assert isinstance(made.optimizer, torch.optim.SGD)
    assert made.optimizer.param_groups[0]["lr"] == 0.1
    assert {id(p) for p in made.optimizer.param_groups[0]["params"]} == {
        id(p) for index in (5, 6, 8) for p in made.module.get_submodule(str(index)).parameters()
    }


def test_what_an_architecture_froze_itself_is_not_trained_in_between() -> None:
    module = Vgg16Bn(4, channels=1, size=32, width=2)
    small = ToySplit(torch.rand(8, 1, 32, 32), torch.arange(8) % 4)
    made = Trainer(
        module, small, config=CONFIG.model_copy(update={"epochs": 1, "augment": "none"}), adapter=lambda given: given,
        augment=ToyModality().augment, runtime=CPU, defenses=[defense(share=1.0)], public=small,
    )  # fmt: skip
    made.fit()
    assert not module.neck.bias.requires_grad
    assert not module.neck.bias.any()
    assert [name for name, parameter in module.named_parameters() if parameter.requires_grad] == [
        "head.weight", "head.bias",
    ]  # fmt: skip


# what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("public", [None, ToySplit(PUBLIC.samples), ToySplit(PUBLIC.samples, 0 * PUBLIC.labels)])
def test_a_data_set_without_labelled_public_classes_is_refused(public: ToySplit | None) -> None:
    with pytest.raises(ModelError, match="labelled public samples") as caught:
        trainer(defense(), public=public)
    assert caught.value.hint


@pytest.mark.parametrize("options", [{"share": 0.01}, {"share": 0.1}, {"share": 0.2, "unit": "parameters"}])
def test_a_share_that_freezes_nothing_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="freezes no parameter"):
        trainer(defense(**options))


def test_a_network_without_a_classification_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="linear"):
        trainer(defense(), module=nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)))


@pytest.mark.parametrize(
    "options", [{"share": 0.0}, {"share": 1.1}, {"unit": "index"}, {"pretrain_epochs": 0}, {"freeze": 3}]
)
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        defense(**options)


# on images ------------------------------------------------------------------------------------------------


def test_half_of_the_layers_are_enough_to_learn_the_private_classes() -> None:
    setting, images = image_toy(), ImageModality()
    shielded = defense(share=0.5)
    bundle = train_toy(setting, images, defenses=[shielded])
    module = restored(setting, bundle, defenses=[defense(share=0.5)])
    assert holdout_accuracy(setting, images, module, CPU) >= 0.8
    assert shielded.facts()["pretraining_accuracy"] >= 0.8
    assert 0 < shielded.facts()["trained_share"] < 1
    again, _ = train_setting(setting, images, CPU, "classifier", [defense(share=0.5)])
    assert all(torch.equal(bundle.weights[name], tensor) for name, tensor in again.module.state_dict().items())
