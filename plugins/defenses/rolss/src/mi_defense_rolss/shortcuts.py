"""Finding the shortcuts of residual networks, by structure, and scaling them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from micore.errors import ModelError

RESNET_BLOCK = ("conv1", "bn1", "conv2", "bn2", "downsample")
"""What a block of a torchvision or timm ResNet has; its shortcut is ``downsample``, or the identity for None."""


@dataclass(frozen=True)
class ResidualBlock:
    """A block, the names under which it holds its shortcuts, and the container whose part it is."""

    block: nn.Module
    names: tuple[str, ...]
    container: nn.Module


class ScaledShortcut(nn.Sequential):
    """A shortcut times ``scale``; with 0 it is not computed, and nothing flows back through it."""

    def __init__(self, shortcut: nn.Module | None, scale: float) -> None:
        parts = list(shortcut) if isinstance(shortcut, nn.Sequential) else [shortcut]
        super().__init__(*(part for part in parts if part is not None))
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is added to the residual: a single 0 when nothing is."""
        if self.scale == 0:
            return inputs.new_zeros(())
        outputs = inputs
        for part in self:
            outputs = part(outputs)
        return outputs if self.scale == 1 else self.scale * outputs


def residual_blocks(module: nn.Module) -> list[ResidualBlock]:
    """Return the blocks with shortcuts, in the order of definition.

    Raises: ModelError for a network without any that is known.
    """
    containers = {id(child): parent for parent in module.modules() for child in parent.children()}
    blocks = [
        ResidualBlock(block, names, containers.get(id(block), module))
        for block in module.modules()
        if (names := shortcut_names(block))
    ]
    if not blocks:
        raise ModelError(
            f"rolss: no skip connection was found in this model ({type(module).__name__})",
            hint="small-resnet, resnet18, ir50, ir152, small-transformer, or a ResNet of torchvision or timm",
        )
    return blocks


def shortcut_names(block: nn.Module) -> tuple[str, ...]:
    """Return the names of a block's shortcuts; none for a module that is no residual block."""
    if all(hasattr(block, name) for name in RESNET_BLOCK):
        return ("downsample",)
    return tuple(name for name, _ in block.named_children() if name == "shortcut" or name.endswith("_shortcut"))


def last_blocks(blocks: list[ResidualBlock], n: int | None) -> list[ResidualBlock]:
    """Return the last n blocks, or those of the last stage.

    A stage is what one container holds. If one holds them all, as in transformers, the network has no stages:
    then the last quarter of its blocks, rounded up, stands for the last of four.

    Raises: ModelError when there are fewer than n.
    """
    if n is not None and n > len(blocks):
        raise ModelError(f"rolss: blocks={n}, but this model has {len(blocks)} residual blocks", hint="fewer blocks")
    if n is None:
        n = sum(block.container is blocks[-1].container for block in blocks)
        n = -(-len(blocks) // 4) if n == len(blocks) else n
    return blocks[-n:]


def scale_shortcuts(blocks: list[ResidualBlock], scale: float) -> list[ScaledShortcut]:
    """Put a scaled shortcut in the place of each of the blocks' own; return them."""
    scaled = []
    for found in blocks:
        for name in found.names:
            shortcut = ScaledShortcut(getattr(found.block, name), scale)
            setattr(found.block, name, shortcut)
            scaled.append(shortcut)
    return scaled
