"""Blocks with scaled shortcuts against their formula, the choice of the last stage, and both ways of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_defense_rolss.defense import ShortcutRemoval, ShortcutRemovalConfig
from mi_defense_rolss.shortcuts import residual_blocks, scale_shortcuts
from mi_image.builders import small_resnet
from mi_image.classifiers import BasicBlock, PreActivationBlock, ResNet18, SmallCnn, SmallResNet
from mi_image.face_networks import ImprovedResidualBlock, Ir50
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from mi_image.transformer import SmallTransformer, TransformerBlock
from micore.artifacts import PluginUse
from micore.configs import make_config
from micore.contracts import Defense
from micore.errors import ConfigError, ModelError
from micore.kit.training import Trainer, TrainingBatch
from micore.runtime import Checkpoints, Runtime
from micore.testing.lab import holdout_accuracy, restored, train_setting, train_toy

CPU, IMAGES = Runtime(device=torch.device("cpu")), ImageModality()
TOY = replace(image_toy(), model=PluginUse(name="small-resnet", config={"width": 8}), build=small_resnet)


def defense(**options: object) -> ShortcutRemoval:
    return ShortcutRemoval(make_config(ShortcutRemovalConfig, options, "rolss"))


# blocks ---------------------------------------------------------------------------------------------------


def torchvision_block(name: str, stride: int) -> nn.Module:
    resnet = pytest.importorskip("torchvision.models.resnet")
    kind = getattr(resnet, name)
    outputs = 8 * kind.expansion
    downsample = nn.Sequential(nn.Conv2d(8, outputs, 1, stride), nn.BatchNorm2d(outputs)) if stride > 1 else None
    block: nn.Module = kind(8 if stride > 1 else outputs, 8, stride, downsample)
    return block


def timm_block(stride: int) -> nn.Module:
    block: nn.Module = pytest.importorskip("timm.models.resnet").BasicBlock(8, 8, stride)
    if stride > 1:
        block.downsample = nn.Sequential(nn.Conv2d(8, 8, 1, stride), nn.BatchNorm2d(8))
    return block


def resnet_residual(block: nn.Module, maps: Tensor) -> Tensor:
    """Return what the convolutions of a ResNet block give, step by step."""
    maps = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(maps)))))
    return block.bn3(block.conv3(torch.relu(maps))) if hasattr(block, "conv3") else maps


def linear_sum(residual: Tensor, shortcut: Tensor) -> Tensor:
    return residual + shortcut


def relu_sum(residual: Tensor, shortcut: Tensor) -> Tensor:
    return torch.relu(residual + shortcut)


Parts = tuple[nn.Module, Callable[[Tensor], Tensor], nn.Module, Callable[[Tensor, Tensor], Tensor], int]


def of_torchvision(name: str, stride: int) -> Parts:
    block = torchvision_block(name, stride)
    shortcut = block.downsample or nn.Identity()
    width = 8 if stride > 1 else 8 * type(block).expansion
    return block, lambda maps: resnet_residual(block, maps), shortcut, relu_sum, width


def of_timm(stride: int) -> Parts:
    block = timm_block(stride)
    return block, lambda maps: resnet_residual(block, maps), block.downsample or nn.Identity(), relu_sum, 8


def own(kind: Callable[[int, int, int], Any], stride: int, total: Callable[[Tensor, Tensor], Tensor]) -> Parts:
    block = kind(8, 8 if stride == 1 else 12, stride)
    return block, block.residual, block.shortcut, total, 8


BLOCKS: dict[str, Callable[[int], Parts]] = {
    "torchvision basic": lambda stride: of_torchvision("BasicBlock", stride),
    "torchvision bottleneck": lambda stride: of_torchvision("Bottleneck", stride),
    "timm basic": of_timm,
    "resnet18": lambda stride: own(BasicBlock, stride, relu_sum),
    "small-resnet": lambda stride: own(PreActivationBlock, stride, linear_sum),
    "ir50": lambda stride: own(ImprovedResidualBlock, stride, linear_sum),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_gives_its_residual_and_the_scaled_shortcut(name: str, stride: int) -> None:
    with CPU.seeded("block"):
        block, residual, shortcut, total, width = BLOCKS[name](stride)
        maps = torch.randn(2, width, 6, 6)
    block.eval()
    plain = block(maps)
    (scaled,) = scale_shortcuts(residual_blocks(block), 1.0)
    assert torch.equal(block(maps), plain), "a factor of 1 changes nothing"
    for scale in (0.6, 0.01):
        scaled.scale = scale
        torch.testing.assert_close(block(maps), total(residual(maps), scale * shortcut(maps)))
    scaled.scale = 0.0
    assert torch.equal(block(maps), total(residual(maps), torch.zeros(())))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BLOCKS)
def test_without_its_shortcut_no_gradient_passes_beside_the_residual(name: str, stride: int) -> None:
    with CPU.seeded("block"):
        block, _, _, _, width = BLOCKS[name](stride)
        maps = torch.rand(2, width, 6, 6, requires_grad=True)
    block.eval()
    for part in block.modules():  # only the shortcut is left
        if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1):
            nn.init.zeros_(part.weight)
    (scaled,) = scale_shortcuts(residual_blocks(block), 1.0)
    gradients = []
    for scale in (1.0, 0.0):
        scaled.scale = scale
        (gradient,) = torch.autograd.grad(block(maps).sum(), maps, allow_unused=True)
        gradients.append(torch.zeros_like(maps) if gradient is None else gradient)
    assert gradients[0].any()
    assert not gradients[1].any()


def test_a_transformer_has_two_shortcuts_in_a_block() -> None:
    with CPU.seeded("block"):
        block, tokens = TransformerBlock(8), torch.randn(2, 5, 8)
    plain = block(tokens)
    middle = tokens + block.attention(tokens)
    assert torch.equal(plain, middle + block.perceptron(middle)), "undefended, it is the usual block"
    (found,) = residual_blocks(block)
    assert found.names == ("attention_shortcut", "perceptron_shortcut")
    scale_shortcuts([found], 0.25)
    middle = 0.25 * tokens + block.attention(tokens)
    torch.testing.assert_close(block(tokens), 0.25 * middle + block.perceptron(middle))


# which blocks ---------------------------------------------------------------------------------------------


def torchvision_resnet() -> nn.Module:
    module: nn.Module = pytest.importorskip("torchvision.models").resnet18(num_classes=4)
    return module


def timm_resnet() -> nn.Module:
    module: nn.Module = pytest.importorskip("timm").create_model("resnet10t", num_classes=4)
    return module


@pytest.mark.parametrize(
    ("build", "last", "total", "prefix"),
    [
        (lambda: ResNet18(4, width=4), 2, 8, "stages.3."),
        (lambda: SmallResNet(4, width=4), 1, 3, "stages.2."),
        (lambda: SmallResNet(4, width=4, depth=2), 2, 6, "stages.2."),
        (lambda: Ir50(4, width=4, embedding=8), 3, 24, "stages.3."),
        (lambda: SmallTransformer(4, size=16), 1, 2, "blocks.1"),
        (lambda: SmallTransformer(4, size=16, depth=12), 3, 12, "blocks."),
        (torchvision_resnet, 2, 8, "layer4."),
        (timm_resnet, 1, 4, "layer4."),
    ],
)
def test_the_last_stage_is_found(build: Callable[[], nn.Module], last: int, total: int, prefix: str) -> None:
    module, shielded = build(), defense()
    assert shielded.adapt_model(module) is module
    assert shielded.facts() == {"blocks": last, "of_blocks": total}
    changed = [name for name, part in module.named_modules() if type(part).__name__ == "ScaledShortcut"]
    assert len({name.rpartition(".")[0] for name in changed}) == last
    assert all(name.startswith(prefix) for name in changed)


def test_the_number_of_blocks_can_be_given() -> None:
    shielded = defense(blocks=5, scale=0.6)
    shielded.adapt_model(ResNet18(4, width=4))
    assert shielded.facts() == {"blocks": 5, "of_blocks": 8}
    with pytest.raises(ModelError, match=r"blocks=9.*has 8"):
        defense(blocks=9).adapt_model(ResNet18(4, width=4))


@pytest.mark.parametrize("module", [SmallCnn(4), nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))])
def test_a_network_without_shortcuts_is_refused(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="no skip connection") as caught:
        defense().adapt_model(module)
    assert "small-resnet" in str(caught.value.hint)


@pytest.mark.parametrize(
    "options", [{"scale": 1.0}, {"scale": -0.1}, {"blocks": 0}, {"first_stage": 0.0}, {"first_stage": 1.0}]
)
def test_settings_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        defense(**options)


# training -------------------------------------------------------------------------------------------------


class Watching(Defense):
    """Notes the factor of the last shortcut in each epoch."""

    def __init__(self) -> None:
        super().__init__(None)
        self.scales: dict[int, float] = {}

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        self.scales[batch.epoch] = module.stages[-1][0].shortcut.scale
        return task_loss()


@pytest.mark.parametrize(
    ("epochs", "share", "first"), [(1, 0.5, 0), (2, 0.5, 1), (4, 0.5, 2), (5, 0.5, 3), (4, 0.99, 3)]
)
def test_two_stages_train_with_the_shortcuts_first(epochs: int, share: float, first: int) -> None:
    shielded, watching = defense(two_stage=True, first_stage=share, scale=0.3), Watching()
    made, _ = train_setting(TOY, IMAGES, CPU, "classifier", [watching, shielded], epochs=epochs)
    assert list(watching.scales.values()) == [1.0] * first + [0.3] * (epochs - first)
    assert [shielded.is_complete(epoch, epochs) for epoch in range(epochs)] == [e >= first for e in range(epochs)]
    assert made.module.stages[-1][0].shortcut.scale == 0.3


@pytest.mark.parametrize("two_stage", [False, True])
def test_the_trained_network_has_no_shortcut_and_comes_back_from_its_weights(two_stage: bool) -> None:
    shielded = defense(two_stage=two_stage)
    bundle = train_toy(TOY, IMAGES, defenses=[shielded])
    module = restored(TOY, bundle, defenses=[defense(two_stage=two_stage)]).eval()
    assert holdout_accuracy(TOY, IMAGES, module, CPU) >= 0.9
    inputs = torch.rand(3, 1, 16, 16)
    answers = module(inputs)
    last = module.stages[-1][0]
    kept = {name: tensor.clone() for name, tensor in last.shortcut.state_dict().items()}
    for parameter in last.shortcut.parameters():
        nn.init.constant_(parameter, float("inf"))
    assert torch.equal(module(inputs), answers), "what the shortcut holds makes no difference"
    last.shortcut.load_state_dict(kept)
    last.shortcut.scale = 1.0
    assert not torch.allclose(module(inputs), answers)


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


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path, stop: int) -> None:
    def train(checkpoints: Checkpoints) -> Trainer:
        runtime, shielded = CPU.with_checkpoints(checkpoints), defense(two_stage=True)
        return train_setting(TOY, IMAGES, runtime, "classifier", [shielded], epochs=4)[0]

    whole = train(Checkpoints())
    with pytest.raises(KilledError):
        train(Stopping(tmp_path / "state", stop))
    going_on = train(Checkpoints(tmp_path / "state"))
    end = whole.module.state_dict()
    assert all(torch.equal(tensor, end[name]) for name, tensor in going_on.module.state_dict().items())
    assert going_on.module.stages[-1][0].shortcut.scale == 0.0
