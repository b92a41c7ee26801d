"""Adversarial training by projected gradient descent.

Madry, Makelov, Schmidt, Tsipras, Vladu: "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018
(arXiv:1706.06083), equation 2.1: the loss is that of the worst input within a ball around each sample.

It is no defense against model inversion. The gradients of a robust model follow what people see, and Mejia et al.,
"Robust or Private? Adversarial Training Makes Models More Vulnerable to Privacy Attacks" (arXiv:1906.06449), find
such models easier to invert. It is here so that this can be measured for targets that need robustness.

Fidelity notes (paper / here)
- Steps: 7 (CIFAR-10) or 40 (MNIST) in the paper; here 2, so that a training step stays below three plain ones. With
  ``steps=1, step_size=1.25 epsilon`` it is the fast variant of Wong, Rice, Kolter (ICLR 2020, arXiv:2001.03994).
- Radius: in canonical units ([0, 1] for images), converted by the standard deviation of the model's input spec.
- The worst input is sought with the network in eval mode, so that its batch statistics and dropout are left alone;
  the paper does not say. The loss on it, in training mode, is whatever the training's loss is.
- The search follows the cross-entropy of the label, also where another defense replaces the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_adversarial_training.perturbation import Norm, Units, answering, perturbed
from micore.contracts import Config, Defense
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.training import Trainer


class AdversarialTrainingConfig(Config):
    """Settings of the defense."""

    norm: Norm = Field("linf", description="ball: linf bounds each value, l2 the Euclidean length; paper: both")
    epsilon: float = Field(
        8 / 255, gt=0, description="radius in canonical units; paper: 8/255 (CIFAR-10), 0.3 (MNIST), linf"
    )
    steps: int = Field(2, ge=1, le=100, description="gradient steps of the search; paper: 7 and 40; each costs time")
    step_size: float | None = Field(
        None, gt=0, description="in canonical units; empty: 1.25 epsilon / steps (Wong et al. for one step)"
    )


class AdversarialTraining(Defense):
    """Replace each batch by its worst case within a ball."""

    Config: ClassVar[type[Config]] = AdversarialTrainingConfig
    config: AdversarialTrainingConfig

    def __init__(self, config: AdversarialTrainingConfig) -> None:
        super().__init__(config)
        self._module: nn.Module | None = None
        self._spec: InputSpec | None = None

    def adapt_training(self, trainer: Trainer) -> None:
        """Take note of the network, and of the units of its input if the adapter tells them."""
        self._module = trainer.module
        spec = getattr(trainer.adapter, "spec", None)
        self._spec = spec if isinstance(spec, InputSpec) else None

    def adapt_inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the worst inputs found; the given ones outside of a training, where there is no network.

        Raises: ModelError for inputs that are no real numbers, such as tokens.
        """
        module = self._module
        if module is None:
            return inputs
        if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
            raise ModelError(
                "adversarial training moves a model's input a little, but this input is not made of real numbers",
                hint="leave adversarial-training out",
            )

        def loss(moved: Tensor) -> Tensor:
            return functional.cross_entropy(module(moved).float(), labels, reduction="sum")

        config = self.config
        with answering(module):
            return perturbed(
                inputs, loss, norm=config.norm, epsilon=config.epsilon, steps=config.steps,
                step_size=config.step_size or 1.25 * config.epsilon / config.steps, units=Units.of(self._spec, inputs),
            )  # fmt: skip

    def facts(self) -> Mapping[str, Any]:
        """Return in which units the radius was; nothing before a training."""
        if self._module is None:
            return {}
        return {"epsilon_units": "model input" if self._spec is None else "canonical"}
