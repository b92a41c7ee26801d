"""Trap-MID: trapdoors that mislead model inversion.

Liu, Chen: "Trap-MID: Trapdoor-based Defense against Model Inversion Attacks", NeurIPS 2024.

A secret trigger per class is blended faintly into inputs, ``(1 - alpha) x + alpha delta_t``, and the target learns to
take such inputs for class t. That shortcut is easier to reach by gradients than what the class really looks like, so
an inversion finds triggers. In each step

1. a discriminator learns to tell trapped inputs from clean ones;
2. the triggers take a sign step, towards looking clean and being taken for their classes;
3. the target learns ``(1 - beta) CE(clean, y) + beta CE(trapped, t)`` in one forward pass of both.

The features that traps give (their ``signatures``) also tell queries that carry them.

Fidelity notes (paper / authors' code / here)
- Blend, range and steps are in [0, 1] of the pictures there, and in the model's normalised input here: normalisation
  is affine, so that is the same with a trigger that is normalised too. The range is the lowest and highest value that
  some training samples reach in each channel.
- The authors trap a sample and then change it at random; here a trigger is blended into the sample as the training
  changed it, and the result is changed once more (crop, rotation, mirror image, each with probability 0.5).
  Only inputs (B, C, H, W) are; mirror images are left out for one channel (digits, text).
- Authors: all samples of a batch are trapped, and every step does 1 and 2: ``trapped=1, every=1``. That took 5.5 times
  as long as a plain training of a small network; the defaults, 0.25 and 8, took 1.5 times.
- The discriminator has the target's optimiser and numbers, with a constant learning rate; its head begins at zero.
- The authors keep the epoch with the best test accuracy. Triggers belong to the last epoch, so only that is kept.
- Their score is the cosine between a sample's features and the mean of trapped ones (``centred=false``). With few
  classes the features of a class and of its trap nearly agree; seen from the class's own mean they do not.
- Threshold: the 95th percentile of clean scores, as theirs, on half of the reference samples; the other half measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_trap_mid.detector import Count, Tap, class_means, features_of, signatures_of, threshold_of, trap_scores
from mi_defense_trap_mid.planting import Planting
from mi_defense_trap_mid.triggers import Triggers, all_traps, balanced_labels, channel_range, draw_triggers
from mi_defense_trap_mid.views import random_views
from micore.contracts import Config, Defense, Fitting
from micore.errors import ModelError
from micore.kit.features import last_linear
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig

RANGE_SAMPLES = 256
BATCH = 256
ACTIVE_ACCURACY = 0.9
STATE = ("triggers", "signatures", "origins", "threshold")


class TrapMidConfig(Config):
    """Settings of Trap-MID."""

    alpha: float = Field(0.02, gt=0, lt=1, description="share of the trigger in a blend (authors: 0.02)")
    beta: float = Field(0.2, gt=0, lt=1, description="weight of the trapped samples' loss (authors: 0.2)")
    trigger_step: float = Field(
        0.01, gt=0, le=1, description="sign step of a trigger, in its range (authors: 0.01 in [0, 1])"
    )
    trapped: float = Field(
        0.25, gt=0, le=1, description="share of a batch that is also shown trapped (authors: 1; 0.25 is quicker)"
    )
    every: int = Field(
        8, ge=1, description="steps between two updates of triggers and discriminator (authors: 1; 8 is quicker)"
    )
    crop_area: float = Field(0.8, gt=0, le=1, description="smallest area of a trapped picture's crop (authors: 0.8)")
    rotation: float = Field(30.0, ge=0, le=180, description="largest rotation of one, degrees (authors: 30)")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of its mirror image (authors: 0.5); none: 0 for one channel"
    )
    reference: int = Field(512, ge=2, description="reference samples for signatures, threshold and facts")
    centred: bool = Field(
        True, description="see features from the mean of the class that a sample is taken for (authors: no)"
    )
    quantile: float = Field(
        0.95, gt=0, lt=1, description="share of clean samples that must not look like traps (authors: 0.95)"
    )


class TrapMid(Defense):
    """The defense Trap-MID (see the module's documentation)."""

    Config: ClassVar[type[Config]] = TrapMidConfig
    config: TrapMidConfig

    def __init__(self, config: TrapMidConfig) -> None:
        super().__init__(config)
        self._planting: Planting | None = None
        self._tap: Tap | None = None
        self._tapped: nn.Module | None = None
        self._kept: dict[str, Tensor] = {}
        self._facts: dict[str, Any] = {}
        self._count = Count()

    # training -------------------------------------------------------------------------------------

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Watch what goes into the classification layer; the network and its answers stay as they are.

        Raises: ModelError for a network without a linear layer.
        """
        self._tap, self._tapped = Tap(), last_linear(module)
        self._tapped.register_forward_hook(self._tap.catch)
        return module

    def adapt_training(self, trainer: Trainer) -> None:
        """Make the discriminator, and find the range of the inputs.

        Raises: ModelError for inputs that nothing can be blended into, and when the head was replaced meanwhile.
        """
        if self._tapped is not None and last_linear(trainer.module) is not self._tapped:
            raise ModelError(
                "trap-mid watches a classification layer that another defense replaced",
                hint="name trap-mid behind the defense that replaces the head",
            )
        split = trainer.split
        rows = torch.arange(0, len(split), max(1, len(split) // RANGE_SAMPLES))
        inputs = trainer.adapter(split.take(rows).to(trainer.runtime.device))
        if not (isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.ndim > 1):
            raise ModelError("trap-mid blends triggers into inputs of real numbers and one shape: not this model's")
        low, high = channel_range(inputs)
        middle = ((low + high) / 2).expand(trainer.n_classes, *inputs.shape[1:]).clone()
        triggers = Triggers(values=middle, low=low, high=high, alpha=self.config.alpha)
        self._planting = Planting(trainer.module, triggers, trainer.config)

    def begin(self, trainer: Trainer) -> None:
        """Draw the triggers."""
        planting = self._planted(trainer.module, None)
        known = planting.triggers
        shape = known.values.shape
        planting.triggers = draw_triggers(shape[0], shape[1:], known.low, known.high, known.alpha)

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Move triggers and discriminator when it is their turn; return the loss of clean and trapped samples.

        Both share one forward pass, and so the statistics of batch normalisation, unless the pass of the clean ones
        was made before.
        """
        planting = self._planted(module, batch.inputs)
        clean = _some(batch.inputs, self.config.trapped)
        labels = balanced_labels(len(clean), len(planting.triggers.values), clean.device)
        if planting.steps % self.config.every == 0:
            planting.train_discriminator(clean, labels)
            planting.move_triggers(module, clean, labels, self.config.trigger_step, self._view)
        planting.steps += 1
        trapped = self._view(planting.triggers.blend(clean, labels))
        logits = _trapped_logits(module, batch, trapped)
        trap_loss = functional.cross_entropy(logits, labels)
        return (1 - self.config.beta) * task_loss() + self.config.beta * trap_loss

    def is_complete(self, epoch: int, epochs: int) -> bool:
        """Tell whether this is the last epoch: the triggers go on moving, and fit the model of no earlier one."""
        return epoch + 1 == epochs

    def training_state(self) -> Mapping[str, Any]:
        """Return triggers and discriminator."""
        return {} if self._planting is None else self._planting.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take back triggers and discriminator."""
        if self._planting is not None:
            self._planting.load(state)

    # answers --------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, fitting: Fitting) -> None:
        """Compute signatures and threshold on half of the reference samples, and measure them on the other half.

        The samples that a half gives are trapped with every class in turn, each class as often.
        """
        rows = torch.linspace(0, len(fitting.reference) - 1, min(self.config.reference, len(fitting.reference)))
        inputs = torch.cat(
            [
                fitting.adapter(fitting.reference.take(part).to(fitting.runtime.device))
                for part in rows.long().split(BATCH)
            ]
        )
        triggers = self._planted(fitting.module, inputs, fitting.n_classes).triggers
        features, logits = features_of(fitting.module, inputs[::2])
        taken = logits.argmax(dim=1)
        origins = class_means(features, taken, fitting.n_classes) * self.config.centred
        trapped, _, labels = all_traps(inputs[::2], triggers)
        signatures = signatures_of(features_of(fitting.module, trapped)[0], labels, origins)
        threshold = threshold_of(trap_scores(features, taken, signatures, origins), self.config.quantile)
        self._kept = {
            "triggers": triggers.values, "signatures": signatures, "origins": origins, "threshold": threshold,
        }  # fmt: skip
        self._facts = self._measured(fitting, inputs[1::2], triggers)

    def state(self) -> Mapping[str, Tensor]:
        """Return triggers (K, ...), signatures and origins (K, d), threshold: who has them walks around the traps."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._kept.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave.

        Raises: ModelError when something is missing.
        """
        missing = set(STATE) - state.keys()
        if missing:
            raise ModelError(f"trap-mid: the bundle lacks {', '.join(sorted(missing))}", hint="train the target again")
        self._kept = dict(state)

    def facts(self) -> Mapping[str, Any]:
        """Return how often traps work and are found, on reference samples that fitted nothing."""
        return self._facts

    def observe(self, scores: Tensor, inputs: Any) -> None:
        """Count the samples whose features look like those of traps."""
        features = None if self._tap is None else self._tap.take(scores)
        flags = None if features is None or not self._kept else self.looks_trapped(features, scores.argmax(dim=1))
        self._count.add(flags, len(scores))

    def trap_scores(self, features: Tensor, predictions: Tensor) -> Tensor:
        """Return how much features (N, d) of samples taken for ``predictions`` (N,) look like a trap's, in [-1, 1]."""
        signatures, origins = (self._kept[name].to(features.device) for name in ("signatures", "origins"))
        return trap_scores(features, predictions, signatures, origins)

    def looks_trapped(self, features: Tensor, predictions: Tensor) -> Tensor:
        """Tell whether these scores are above the threshold, (N,)."""
        return self.trap_scores(features, predictions) > self._kept["threshold"].to(features.device)

    def findings(self) -> Mapping[str, Any]:
        """Return how many queries looked like traps; of clean ones 1 - ``quantile`` are expected to."""
        count = self._count
        if not count.queries:
            return {}
        return {
            "queries": count.queries, "judged": count.judged, "like_traps": count.flagged,
            "share": count.flagged / count.judged if count.judged else None, "first_like_trap": count.first,
        }  # fmt: skip

    # inside ---------------------------------------------------------------------------------------

    def _planted(self, module: nn.Module, inputs: Tensor | None, n_classes: int | None = None) -> Planting:
        """Return what is planted; outside of a whole training it begins with the range of these inputs."""
        if self._planting is None:
            if inputs is None:
                raise ModelError("trap-mid was not given the training")
            classes = last_linear(module).out_features if n_classes is None else n_classes
            triggers = draw_triggers(classes, inputs.shape[1:], *channel_range(inputs), self.config.alpha)
            self._planting = Planting(module, triggers, TrainingConfig.model_validate({}))
        return self._planting

    def _view(self, inputs: Tensor) -> Tensor:
        config = self.config
        usual = 0.0 if inputs.ndim < 2 or inputs.shape[1] == 1 else 0.5
        return random_views(inputs, config.crop_area, config.rotation, usual if config.flip is None else config.flip)

    def _measured(self, fitting: Fitting, inputs: Tensor, triggers: Triggers) -> dict[str, Any]:
        """Return the facts, of inputs that neither signatures nor threshold were made of; none of an empty half."""
        if not len(inputs):
            return {}
        features, logits = features_of(fitting.module, inputs)
        trapped, rows, labels = all_traps(inputs, triggers)
        trap_features, trap_logits = features_of(fitting.module, trapped)
        clean, taken = logits.argmax(dim=1), trap_logits.argmax(dim=1)
        strange = labels != clean[rows]  # a sample of the trap's own class is taken for it anyway
        success = float((taken == labels)[strange].double().mean()) if bool(strange.any()) else 0.0
        return {
            "active": success >= ACTIVE_ACCURACY,
            "trapped_accuracy": success,
            "detected": float(self.looks_trapped(trap_features, taken).double().mean()),
            "false_positives": float(self.looks_trapped(features, clean).double().mean()),
            "threshold": float(self._kept["threshold"]),
            "fresh_reference": fitting.reference_is_fresh,
        }


def _some(inputs: Tensor, share: float) -> Tensor:
    """Return a random share of the rows, at least one."""
    n = max(1, round(share * len(inputs)))
    return inputs if n == len(inputs) else inputs[torch.randperm(len(inputs), device=inputs.device)[:n]]


def _trapped_logits(module: nn.Module, batch: TrainingBatch, trapped: Tensor) -> Tensor:
    """Return the logits of trapped inputs, from one pass with the clean ones if theirs was not made yet."""
    if batch.passed:
        alone: Tensor = module(trapped)
        return alone.float()
    n = len(batch.inputs)
    joint: Tensor = module(torch.cat([batch.inputs, trapped]))
    batch.give(joint[:n])
    return joint[n:].float()
