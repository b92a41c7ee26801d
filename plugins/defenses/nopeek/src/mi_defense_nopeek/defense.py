"""NoPeek: the distance correlation of the input and a hidden layer becomes a part of the loss.

Vepakomma, Singh, Gupta, Raskar: "NoPeek: Information leakage reduction to share activations in distributed deep
learning", ICDM Workshops 2020 (arXiv:2008.09161).

Threat: reconstruction of an input from what a hidden layer passes on, as in split learning:

    loss = task loss + weight * dCor(X, Z)

Fidelity notes (paper / authors' code / here)
- Weights: the authors' code for CIFAR-10 has 1000 dCor + 0.1 cross-entropy, others' MNIST example has
  cross-entropy + 0.1 dCor. Here the task loss keeps weight 1, and 10 is ours: on digits, 1 changes next to nothing.
- Distances: Euclidean, as in the definition and the authors' code; the MNIST example squares them.
- Layer: the authors split a ResNet after the first block of its first stage. Here it is one of
  `micore.kit.layers.middle_layers`, by default the first.
- Distance correlation is near 1 for many dimensions even when nothing depends on anything (0.995 for 64 independent
  samples of 3072 and 1024 dimensions), so its value says nothing. The card tells the bias-corrected dCor^2 instead,
  which is about 0 then.
- The floor of 1e-7 below the square root is put on the ratio instead of on each of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_defense_nopeek.distance_correlation import distance_correlation, unbiased_squared
from micore.contracts import Config, Defense, Fitting
from micore.errors import ModelError
from micore.kit.layers import caught_outputs, middle_layers, outputs_and_logits
from micore.kit.training import TrainingBatch

FITTING_BATCH = 64


class NoPeekConfig(Config):
    """Settings of the defense."""

    weight: float = Field(
        10.0, ge=0, le=1e6,
        description="of the distance correlation beside a task loss of weight 1 (ours; authors' ratio: 10000)",
    )  # fmt: skip
    layer: int = Field(0, ge=0, description="which hidden layer is guarded, counted from the input")
    layers: int = Field(3, ge=1, description="hidden layers to count, of a network that names none itself")
    measured: int = Field(256, ge=4, le=4096, description="samples that the card's figure is measured on, at most")


class DistanceCorrelationPenalty(Defense):
    """Lower the distance correlation of the input and the output of a hidden layer."""

    Config: ClassVar[type[Config]] = NoPeekConfig
    config: NoPeekConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._facts: dict[str, Any] = {}

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Change nothing. Raises: ModelError for a network without that hidden layer."""
        guarded_layer(module, self.config)
        return module

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss so far and the weighted distance correlation of the batch.

        Raises: ModelError for inputs that are no numbers.
        """
        _require_numbers(batch.inputs)
        layer = guarded_layer(module, self.config)
        with caught_outputs([layer]) as outputs:
            _ = batch.logits
        (hidden,) = list(outputs) or outputs_and_logits(module, [layer], batch.inputs)[0]
        return task_loss() + self.config.weight * distance_correlation(batch.inputs, hidden)

    @torch.no_grad()
    def fit(self, fitting: Fitting) -> None:
        """Measure the bias-corrected dCor^2 on reference samples."""
        n = min(self.config.measured, len(fitting.reference))
        if n < 4:
            return
        layer = guarded_layer(fitting.module, self.config)
        inputs, hidden = [], []
        for rows in torch.randperm(len(fitting.reference))[:n].split(FITTING_BATCH):
            inputs.append(fitting.adapter(fitting.reference.take(rows).to(fitting.runtime.device)))
            hidden.append(outputs_and_logits(fitting.module, [layer], inputs[-1])[0][0])
        _require_numbers(inputs[0])
        self._facts = {
            "unbiased_squared_distance_correlation": float(unbiased_squared(torch.cat(inputs), torch.cat(hidden))),
            "measured_samples": n,
            "measured_on": "validation samples" if fitting.reference_is_fresh else "training samples",
        }

    def facts(self) -> Mapping[str, Any]:
        """Return the bias-corrected dCor^2 of input and hidden layer after training."""
        return self._facts


def guarded_layer(module: nn.Module, config: NoPeekConfig) -> nn.Module:
    """Return the hidden layer that is guarded. Raises: ModelError when the network has none of this number."""
    layers = middle_layers(module, config.layers)
    if config.layer >= len(layers):
        raise ModelError(
            f"this model has {len(layers)} hidden layers, none of number {config.layer}",
            hint=f"choose layer from 0 to {len(layers) - 1}",
        )
    return layers[config.layer]


def _require_numbers(inputs: Tensor) -> None:
    if not inputs.is_floating_point():
        raise ModelError(f"defense nopeek needs inputs of numbers, not of {inputs.dtype}")
