"""Removal of the last stage's skip connections.

Koh, Ho, Nguyen, Cheung: "On the Vulnerability of Skip Connections to Model Inversion Attacks", ECCV 2024
(arXiv:2409.01696): RoLSS (removed), SSF (scaled by a factor) and TTS (trained in two stages).

A block of the last stage gives relu(F(x) + s x) instead of relu(F(x) + x). Through a shortcut the gradient of
an inversion passes a block unchanged; with s = 0 it has to go through the block's layers.

Threat model: white-box. The adversary follows gradients through the network.

Fidelity notes (paper / authors' code / here)
- The projection in the first block of a stage is scaled or removed like the identities, as in the authors' code.
- In the authors' code the last blocks of stage 3 never have a shortcut, in the undefended networks neither. Here
  only the last stage changes.
- DenseNets, whose shortcuts are concatenated, are not covered. For s = 0 the authors' code leaves the classifier
  one growth rate of channels, which is a low-rank bottleneck of its own.
- Transformers: the authors set a factor for each of 12 layers, of either branch. Here the last quarter of the
  layers stands for the last stage, with both branches.
- Two stages: the paper trains with all shortcuts, removes them and trains again. Here it is one training with
  one schedule of the step size; ``first_stage`` of its epochs have all shortcuts.
- The authors keep the epoch with the best accuracy on test data. Here nothing is chosen so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from mi_defense_rolss.shortcuts import ScaledShortcut, last_blocks, residual_blocks, scale_shortcuts
from micore.contracts import Config, Defense
from micore.kit.training import TrainingBatch


class ShortcutRemovalConfig(Config):
    """Settings of the defense."""

    scale: float = Field(
        0.0, ge=0, lt=1, description="factor of the shortcuts; paper: 0 (RoLSS); authors' ResNet-18: 0.6 (SSF)"
    )
    blocks: int | None = Field(
        None, ge=1, description="how many of the last blocks; those of the last stage, as in the paper, when empty"
    )
    two_stage: bool = Field(False, description="train with the shortcuts first (TTS)")
    first_stage: float = Field(
        0.5, gt=0, lt=1, description="share of the epochs with the shortcuts, of two_stage; a choice of this package"
    )


class ShortcutRemoval(Defense):
    """Scale the shortcuts of the last stage, or remove them."""

    Config: ClassVar[type[Config]] = ShortcutRemovalConfig
    config: ShortcutRemovalConfig

    def __init__(self, config: ShortcutRemovalConfig) -> None:
        super().__init__(config)
        self._shortcuts: list[ScaledShortcut] = []
        self._facts: dict[str, int] = {}

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Scale the shortcuts of the last blocks."""
        blocks = residual_blocks(module)
        last = last_blocks(blocks, self.config.blocks)
        self._shortcuts = scale_shortcuts(last, self.config.scale)
        self._facts = {"blocks": len(last), "of_blocks": len(blocks)}
        return module

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss so far, with the shortcuts as this epoch has them."""
        removed = self.is_complete(batch.epoch, batch.epochs)
        for shortcut in self._shortcuts:
            shortcut.scale = self.config.scale if removed else 1.0
        return task_loss()

    def is_complete(self, epoch: int, epochs: int) -> bool:
        """Tell whether the shortcuts are scaled in this epoch; in the last one they always are."""
        if not self.config.two_stage:
            return True
        return epoch >= min(math.ceil(self.config.first_stage * epochs), epochs - 1)

    def facts(self) -> Mapping[str, Any]:
        """Tell how many of the residual blocks are changed."""
        return dict(self._facts)
