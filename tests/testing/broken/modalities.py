"""Modalities that each break one rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from good import ToyModality
from toy_plugins import Collection

from micore.contracts import Case
from micore.kit.training import TrainingConfig
from micore.testing.toys import toy_setting

broken = Collection("modality")


@broken("offers-a-toy-problem", says="toy()")
class OffersNoToy(ToyModality):
    """Grids."""

    toy = None


@broken("offers-a-toy-problem", says="accuracy")
class OffersUntrainedToy(ToyModality):
    """Grids."""

    def toy(self):
        weak = TrainingConfig(epochs=1, learning_rate=1e-9, augment="none")
        return replace(toy_setting(), training=weak)


@broken("toy-judge-knows-the-truth", says="are judged")
class JudgesBlindly(ToyModality):
    """Grids."""

    def toy(self):
        return replace(toy_setting(), judge=lambda case, samples: torch.ones(len(samples)))


@broken("stored-samples-come-back", says="changed")
class StoresHalf(ToyModality):
    """Grids."""

    def unpack(self, tensors):
        return tensors["grids"].half().float()


@broken("stored-samples-come-back", says="came back as")
class LosesOne(ToyModality):
    """Grids."""

    def unpack(self, tensors):
        return tensors["grids"][1:]


@broken("join-keeps-everything", says="differ")
class JoinsBackwards(ToyModality):
    """Grids."""

    def join(self, parts):
        return super().join(parts[::-1])


@broken("adapter-is-differentiable", says="no gradient")
class DetachesSamples(ToyModality):
    """Grids."""

    def adapter(self, spec):
        good = super().adapter(spec)
        return lambda samples: good(samples.detach())


@broken("adapter-keeps-the-device", says="device")
class LeavesMeanBehind(ToyModality):
    """Grids."""

    def adapter(self, spec):
        return lambda samples: (samples - torch.tensor([spec.mean[0]])) / spec.std[0]


@broken("cases-are-named-once", says="unique")
class NamesAllTheSame(ToyModality):
    """Grids."""

    def cases(self, goal, dataset, bundle_classes, choice, evidence=None):
        return [replace(case, id="case") for case in super().cases(goal, dataset, bundle_classes, choice)]


@broken("cases-are-named-once", says="file names")
class NamesByPath(ToyModality):
    """Grids."""

    def cases(self, goal, dataset, bundle_classes, choice, evidence=None):
        cases = super().cases(goal, dataset, bundle_classes, choice)
        return [Case(id=f"../{case.id}", goal=goal, label=case.label) for case in cases]


@broken("choice-of-cases-is-parsed", says="choice '1'")
class IgnoresChoice(ToyModality):
    """Grids."""

    def cases(self, goal, dataset, bundle_classes, choice, evidence=None):
        return super().cases(goal, dataset, bundle_classes, None)


@broken("choice-of-cases-is-parsed", says="accepted")
class TakesAnyChoice(ToyModality):
    """Grids."""

    def cases(self, goal, dataset, bundle_classes, choice, evidence=None):
        return super().cases(goal, dataset, bundle_classes, choice if choice in (None, "1") else None)


@broken("augmented-samples-stay-canonical", says="outside")
class ForgetsClamp(ToyModality):
    """Grids."""

    def augment(self, samples, strength, rng):
        return samples if strength == "none" else samples + rng.normal(samples.shape)


@broken("augmented-samples-stay-canonical", says="changes nothing")
class KnowsNoLight(ToyModality):
    """Grids."""

    def augment(self, samples, strength, rng):
        return super().augment(samples, "none" if strength == "light" else strength, rng)


@broken("augmented-samples-stay-canonical", says="none changes samples")
class AugmentsAlways(ToyModality):
    """Grids."""

    def augment(self, samples, strength, rng):
        return super().augment(samples, "strong", rng)


@broken("augmentation-follows-its-stream", says="moved")
class DrawsFromGlobal(ToyModality):
    """Grids."""

    def augment(self, samples, strength, rng):
        return super().augment(samples, strength, rng).mul(1 - 0.1 * torch.rand(()))


@broken("augmentation-follows-its-stream", says="in the same way")
class IgnoresStream(ToyModality):
    """Grids."""

    def augment(self, samples, strength, rng):
        return samples if strength == "none" else samples * 0.9


@broken("previews-are-written", says="not there or empty")
class WritesNothing(ToyModality):
    """Grids."""

    def export(self, samples, directory):
        return [directory / f"{key}.txt" for key in samples]


@broken("previews-are-written", says="outside the directory")
class WritesElsewhere(ToyModality):
    """Grids."""

    def export(self, samples, directory):
        return [Path(__file__) for _ in samples]


@broken("fragment-is-self-contained", says="outside or runs code")
class LoadsFromNetwork(ToyModality):
    """Grids."""

    def show(self, samples, limit):
        return super().show(samples, limit) + '<img src="https://example.org/a.png">'


@broken("fragment-is-self-contained", says="limit")
class ShowsEverything(ToyModality):
    """Grids."""

    def show(self, samples, limit):
        return super().show(samples, len(samples))


@broken("blurred-view-holds-nothing-finer", says="holds what the plain one shows")
class BlursByStyle(ToyModality):
    """Grids."""

    def show_blurred(self, samples, limit):
        return f'<div style="filter: blur(9px)">{super().show(samples, limit)}</div>'


@broken("overlap-finds-copies", says="not noticed")
class SeesNoOverlap(ToyModality):
    """Grids."""

    def overlap(self, dataset):
        return {"equal": 0}
