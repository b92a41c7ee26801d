"""Mutual-information regularisation (MID): a variational information bottleneck before the classification layer.

Wang, Zhang, Jia: "Improving Robustness to Model Inversion Attacks via Mutual Information Regularization", AAAI 2021
(arXiv:2009.05241).

Threat: inversion with any access. Output and input share at most what passes the bottleneck, I(X; Y) <= I(X; Z), and
the loss bounds I(X; Z) from above:

    loss = task loss + beta * mean_i KL(N(mu(x_i), sigma(x_i)^2) || N(0, I))

Fidelity notes (paper / authors' code / here)
- Bottleneck: d features, k = d // 2 numbers, a linear layer d -> 2k for mu and s, sigma = softplus(s - 5), a linear
  head k -> classes; as the authors' code. Here it takes the place of the last linear layer of any network, so d is
  what goes into that layer.
- Answers: the authors' code draws fresh noise at each query, so asking often and averaging takes it away, and the
  noise costs accuracy. Here ``answer="mean"`` leaves it out. ``answer="sample"`` gives each sample one draw, fixed by
  a keyed hash of the signs of random projections of its features: repeating a query tells nothing new, and nor does a
  change of the input too small to turn a sign. Results here depend on the sample alone, so a fresh draw is not offered.
- beta: 0.003 for CelebA and VGG16, 0.1 in the comparison of BiDO, 0.01 elsewhere, which is the default here. It is
  raised linearly over the first tenth of the training, which is ours, lest the bottleneck close before it is used.
- The divergence is computed in float32, with sigma at least 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_defense_mid.bottleneck import Bottleneck, divergence, moments
from micore.contracts import Config, Defense, Fitting
from micore.errors import ModelError
from micore.kit.features import last_linear
from micore.kit.layers import outputs_and_logits, replace_layer
from micore.kit.training import TrainingBatch

FITTING_BATCH = 256


class MutualInformationConfig(Config):
    """Settings of the defense."""

    beta: float = Field(
        0.01, ge=0, le=10,
        description="weight of the divergence (authors: 0.003 to 0.1); choose it by accuracy, in steps of 3",
    )  # fmt: skip
    warm_up: float = Field(0.1, ge=0, le=1, description="share of the epochs over which beta is raised (ours)")
    width: int | None = Field(
        None, ge=1, description="numbers that pass the bottleneck; half of the features when empty (authors)"
    )
    answer: Literal["mean", "sample"] = Field(
        "mean", description="answers without noise, or with noise that the sample's features decide"
    )


class MutualInformationRegularisation(Defense):
    """Put a noisy bottleneck before the classification layer and make its divergence a part of the loss."""

    Config: ClassVar[type[Config]] = MutualInformationConfig
    config: MutualInformationConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._facts: dict[str, Any] = {}

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Replace the last linear layer by the bottleneck and its head.

        Raises: ModelError for a network without a linear layer.
        """
        old = last_linear(module)
        width = self.config.width or max(1, old.in_features // 2)
        new = Bottleneck(old.in_features, width, old.out_features, self.config.answer)
        return replace_layer(module, old, new.to(old.weight.device))

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss so far and the weighted mean divergence of the batch's forward pass."""
        bottleneck = bottleneck_of(module)
        _ = batch.logits  # before the loss so far: other defenses may make passes of their own in it
        rates = bottleneck.take_divergence()
        if rates is None:
            rates = _divergences(module, bottleneck, batch.inputs)
        return task_loss() + beta_at(self.config, batch.epoch, batch.epochs) * rates.mean()

    @torch.no_grad()
    def fit(self, fitting: Fitting) -> None:
        """Measure the mean divergence of the reference samples: a bound of what the bottleneck lets pass."""
        bottleneck = _found(fitting.module)
        if bottleneck is None:
            return
        rates = []
        for rows in torch.arange(len(fitting.reference)).split(FITTING_BATCH):
            inputs = fitting.adapter(fitting.reference.take(rows).to(fitting.runtime.device))
            rates.append(_divergences(fitting.module, bottleneck, inputs).flatten())
        self._facts = {
            "divergence_nats": float(torch.cat(rates).mean()),
            "measured_on": "validation samples" if fitting.reference_is_fresh else "training samples",
        }

    def facts(self) -> Mapping[str, Any]:
        """Return the mean divergence after training, in nats for each sample."""
        return self._facts


def beta_at(config: MutualInformationConfig, epoch: int, epochs: int) -> float:
    """Return the weight of the divergence in an epoch, counted from 0."""
    rising = config.warm_up * epochs
    return config.beta * min(1.0, (epoch + 1) / rising) if rising > 0 else config.beta


def bottleneck_of(module: nn.Module) -> Bottleneck:
    """Return the bottleneck of a network. Raises: ModelError for one without."""
    found = _found(module)
    if found is None:
        raise ModelError(
            "this model has no bottleneck of defense mid", hint="build it by `adapt_model`, as `mi train` does"
        )
    return found


def _found(module: nn.Module) -> Bottleneck | None:
    return next((layer for layer in module.modules() if isinstance(layer, Bottleneck)), None)


def _divergences(module: nn.Module, bottleneck: Bottleneck, inputs: Tensor) -> Tensor:
    """Return the divergence of each input, in a forward pass of its own."""
    (statistics,), _ = outputs_and_logits(module, [bottleneck.statistics], inputs)
    return divergence(*moments(statistics))
