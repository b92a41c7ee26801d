"""Defenses that each break one rule."""

from __future__ import annotations

import numpy as np
import torch
from good import GoodDefense
from torch import nn
from toy_plugins import Collection

from micore.testing.toys import ToySplit

broken = Collection("defense")
EVERYWHERE = ("data", "training", "inference", "monitoring")


@broken("metadata-complete", says="paper")
class NoPaper(GoodDefense):
    """Smooth something."""


@broken("stages-match-the-hooks", says="does not declare stage 'training'", stages=("inference", "monitoring"))
class HidesTraining(GoodDefense):
    pass


@broken("stages-match-the-hooks", says="declares stage 'data'", stages=EVERYWHERE)
class DoesNothingToData(GoodDefense):
    pass


@broken("global-generators-are-untouched", says="numpy")
class DrawsFromNumpy(GoodDefense):
    def training_loss(self, module, batch, task_loss):
        return super().training_loss(module, batch, task_loss) + 0.0 * np.random.rand()


@broken("composes-with-others", says="another model")
class LooksAtItsNeighbours(GoodDefense):
    def training_loss(self, module, batch, task_loss):
        return super().training_loss(module, batch, task_loss) * self.factor

    def adapt_training(self, trainer):
        self.factor = 1.0 if trainer.defenses[0] is self else 0.0


@broken("training-loss-gives-gradients", says="no gradient")
class DetachesLoss(GoodDefense):
    def training_loss(self, module, batch, task_loss):
        return super().training_loss(module, batch, task_loss).detach()


@broken("training-loss-gives-gradients", says="the training loss is")
class DividesByZero(GoodDefense):
    def training_loss(self, module, batch, task_loss):
        return super().training_loss(module, batch, task_loss) / 0


@broken("model-stays-useful", says="chance")
class DestroysModel(GoodDefense):
    def training_loss(self, module, batch, task_loss):
        return 0.0 * task_loss() + sum(weight.square().sum() for weight in module.parameters())


@broken("data-are-kept", says="in place")
class ChangesDataInPlace(GoodDefense):
    def adapt_data(self, split):
        split.samples[0] = 1 - split.samples[0]
        return split


@broken("data-are-kept", says="other labels")
class DropsLabels(GoodDefense):
    def adapt_data(self, split):
        return ToySplit(split.samples, split.labels[:-1])


@broken("answers-are-probabilities", says="became")
class CutsClasses(GoodDefense):
    def adapt_output(self, scores, inputs):
        return scores[:, :2]


@broken("answers-are-probabilities", says="add up")
class Unnormalised(GoodDefense):
    def adapt_output(self, scores, inputs):
        return scores**0.5


@broken("answers-are-probabilities", says="negative")
class SubtractsNoise(GoodDefense):
    def adapt_output(self, scores, inputs):
        shift = torch.tensor([0.5, -0.5, 0.0, 0.0])
        return scores + shift


@broken("answers-are-probabilities", says="in place")
class ChangesScoresInPlace(GoodDefense):
    def adapt_output(self, scores, inputs):
        return scores.copy_(super().adapt_output(scores, inputs))


@broken("answer-depends-on-the-sample-only", says="asked alone")
class MixesBatch(GoodDefense):
    def adapt_output(self, scores, inputs):
        return 0.5 * scores + 0.5 * scores.mean(dim=0)


@broken("inference-is-switched-on", says="undefended")
class ForgetsTemperature(GoodDefense):
    def adapt_output(self, scores, inputs):
        return scores


@broken("state-is-all-there-is", says="answers differently")
class ForgetsWhatItFitted(GoodDefense):
    strength = 1.0

    def fit(self, fitting):
        self.strength = 2.0

    def adapt_output(self, scores, inputs):
        return super().adapt_output(scores**self.strength, inputs)


@broken("state-is-all-there-is", says="no slash")
class NamesByPath(GoodDefense):
    def state(self):
        return {"layer/weight": torch.zeros(1)}


@broken("watching-changes-nothing", says="no findings")
class SleepsOnDuty(GoodDefense):
    def findings(self):
        return {}


@broken("watching-changes-nothing", says="in place")
class SpoilsWhatItSees(GoodDefense):
    def observe(self, scores, inputs):
        super().observe(scores, inputs)
        scores.zero_()


class Shifted(nn.Module):
    """Holds a random constant that is no buffer."""

    def __init__(self, module):
        super().__init__()
        self.inner, self.shift = module, torch.randn(())

    def forward(self, inputs):
        return self.inner(inputs + self.shift)


@broken("weights-fit-a-rebuilt-model", says="state_dict")
class HidesConstant(GoodDefense):
    def adapt_model(self, module):
        return Shifted(module)


@broken("devices-are-not-mixed", says="device")
class LeavesConstantBehind(GoodDefense):
    def training_loss(self, module, batch, task_loss):
        weights = torch.ones(len(batch.labels))
        return super().training_loss(module, batch, task_loss) + 0.0 * (weights * batch.logits[:, 0]).sum()
