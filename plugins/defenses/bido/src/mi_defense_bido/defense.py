"""Bilateral dependency optimisation (BiDO).

Peng, Liu, Zhang, Lan, Ye, Liu, Han: "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks",
KDD 2022 (arXiv:2206.05483).

Threat: white-box inversion of classes. Each hidden layer Z_j is made to depend less on the input X, which an
inversion looks for, and more on the label Y, which the task needs:

    loss = task loss + sum_j (lambda_x d(Z_j, X) - lambda_y d(Z_j, Y))

d is the normalised HSIC or COCO of a batch of m samples, with Gaussian kernels ``exp(-D / (2 s^2 dim))`` of inputs
and layers and the linear kernel of one-hot labels:

    HSIC  tr(R_A R_B),  R = C (C + epsilon m I)^-1,  C = H K H
    COCO  sqrt(||C_A C_B||) / m

Fidelity notes (paper / authors' code / here)
- Batches: the paper's have 16 identities with 4 images each, and so here (see `batches`). When all labels of a batch
  differ, d(Z, Y) does not depend on the labels at all.
- The authors' script never passes on its choice of COCO and trains with HSIC. Here ``measure`` is what it says.
- COCO is defined with the spectral norm; the authors' code takes the Frobenius norm, about twice as large, which is
  the default here because lambdas are made for it.
- With s = 5 the Gaussian kernel of images is nearly linear and the ridge epsilon decides what counts as dependence:
  lambdas hold for s = 5, epsilon = 1e-5 and batches of 64 only. The authors' "median" bandwidth, which squares a
  squared distance, is left out.
- X is the model's normalised input; the authors' has pixels in [0, 1]. Layers: the authors name them for each network
  (the ends of five blocks for VGG16). Here they are those of `micore.kit.layers.middle_layers`.
- Kernels are computed in float64, all layers at once, on the device; where it has no float64, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_defense_bido.batches import ClassGroups, repeated_share
from mi_defense_bido.kernels import (
    centred,
    coco,
    exact_dtype,
    gaussian_kernel,
    label_kernel,
    normalised_hsic,
    regularised,
)
from micore.contracts import Config, Defense
from micore.errors import ConfigError, ModelError
from micore.kit.layers import caught_outputs, middle_layers, outputs_and_logits

if TYPE_CHECKING:
    from micore.kit.training import Trainer, TrainingBatch

LEAST_REPEATED = 0.8


class BilateralDependencyConfig(Config):
    """Settings of the defense."""

    measure: Literal["hsic", "coco"] = Field("hsic", description="measure of dependence")
    lambda_x: float = Field(
        0.05, ge=0, le=100,
        description="weight of the dependence on the input (authors, CelebA, VGG16: HSIC 0.05; MNIST: COCO 1 or 2)",
    )  # fmt: skip
    lambda_y: float = Field(
        0.5, ge=0, le=1000,
        description="weight of the dependence on the label (authors: HSIC 0.5, COCO 50 or 20); 5 to 10 times lambda_x",
    )  # fmt: skip
    norm: Literal["fro", "spectral"] = Field("fro", description="of COCO: the authors' code, or the definition")
    bandwidth: float = Field(5.0, gt=0, description="s of the Gaussian kernels (authors: 5)")
    epsilon: float = Field(1e-5, gt=0, le=1, description="ridge of HSIC, for each sample of a batch (authors: 1e-5)")
    layers: int = Field(3, ge=1, description="hidden layers, of a network that names none itself")
    images_per_class: int = Field(4, ge=2, description="samples of each class in a batch (authors: 4)")


class BilateralDependencyOptimisation(Defense):
    """Lower the dependence of hidden layers on the input and raise that on the label."""

    Config: ClassVar[type[Config]] = BilateralDependencyConfig
    config: BilateralDependencyConfig

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Change nothing. Raises: ModelError for a network without hidden layers."""
        middle_layers(module, self.config.layers)
        return module

    def adapt_training(self, trainer: Trainer) -> None:
        """Put several samples of each class into a batch.

        Raises: ConfigError when classes or batches are too small for it.
        """
        labels = trainer.split.labels
        if labels is None:
            raise ModelError("defense bido needs labels, and this split has none")
        check_groups(labels, trainer.config.batch_size, self.config.images_per_class)
        trainer.sampler = ClassGroups(self.config.images_per_class)

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss so far with the dependences of all layers.

        Raises: ModelError for inputs that are no numbers.
        """
        layers = middle_layers(module, self.config.layers)
        with caught_outputs(layers) as outputs:
            _ = batch.logits
        hidden = list(outputs) or outputs_and_logits(module, layers, batch.inputs)[0]
        on_input, on_label = dependences(self.config, batch.inputs, hidden, batch.labels)
        extra = self.config.lambda_x * on_input.sum() - self.config.lambda_y * on_label.sum()
        return task_loss() + extra.float()


def check_groups(labels: Tensor, batch_size: int, per_class: int) -> None:
    """Raise ConfigError when batches of several samples of each of several classes cannot be made."""
    if batch_size < 2 * per_class:
        raise ConfigError(
            f"defense bido: a batch of {batch_size} has no room for two classes of {per_class} samples",
            hint=f"-p batch_size={2 * per_class}, or a smaller images_per_class",
        )
    share = repeated_share(labels)
    if share < LEAST_REPEATED:
        raise ConfigError(
            f"defense bido: only {share:.0%} of the classes have two samples or more, it needs {LEAST_REPEATED:.0%}",
            hint="leave the classes of one sample out",
        )


def dependences(
    config: BilateralDependencyConfig, inputs: Tensor, hidden: Sequence[Tensor], labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return d(Z_j, X) and d(Z_j, Y), (layers,) each, for inputs (m, ...), outputs (m, ...) and labels (m,)."""
    if not inputs.is_floating_point():
        raise ModelError(f"defense bido needs inputs of numbers, not of {inputs.dtype}")
    dtype = exact_dtype(inputs.device)
    with torch.autocast(inputs.device.type, enabled=False):
        gaussian = [gaussian_kernel(rows.flatten(1).to(dtype), config.bandwidth) for rows in (inputs, *hidden)]
        kernels = centred(torch.stack([label_kernel(labels, dtype), *gaussian]))
        if config.measure == "coco":
            return coco(kernels[2:], kernels[1], config.norm), coco(kernels[2:], kernels[0], config.norm)
        matrices = regularised(kernels, config.epsilon)
        return normalised_hsic(matrices[2:], matrices[1]), normalised_hsic(matrices[2:], matrices[0])
