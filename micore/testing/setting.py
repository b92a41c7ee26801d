"""A small planted problem that a modality offers for checks: its answer is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from micore.artifacts import PluginUse
from micore.contracts import Case, Dataset, ModelBuilder, Samples, Split, Truth
from micore.inputs import InputSpec
from micore.kit.training import TrainingConfig
from micore.records import true_label
from micore.runtime import Random

TOY_TRAINING = TrainingConfig.model_validate({"epochs": 12, "batch_size": 32, "learning_rate": 1e-2, "augment": "none"})


@dataclass(frozen=True, kw_only=True)
class ToySetting:
    """A data set, a target that learns it in a second, and a judge that never saw the target.

    A modality offers one by a method ``toy()`` (or several, for several goals).

    model, build: the target's architecture, as a bundle names it and as it is built; judge_model,
    judge_build: another one, for evaluators that need a model.
    judge: for each sample, (n,), how much of what is private about this case it shows, at most 1; must be
    about 0 on average for samples that were made without the target.
    problem: what is wrong with samples (type, shape, range), or None.
    noise: n samples of the canonical range without any content.
    inputs: inputs that models are tried on, from small to large; fresh_inputs: makes so many random ones of a model's
    input, float and differentiable; None: normal numbers.
    role: of the target.
    margin: how far above the floor an attack must come, as a part of the way to held-out private samples.
    """

    modality: str
    goals: tuple[str, ...] = ("class",)
    role: str = "classifier"
    dataset: Dataset
    model: PluginUse
    build: ModelBuilder
    judge_model: PluginUse
    judge_build: ModelBuilder
    judge: Callable[[Case, Samples], Tensor]
    problem: Callable[[Samples], str | None]
    noise: Callable[[int, Random], Samples]
    inputs: tuple[InputSpec, ...] = ()
    fresh_inputs: Callable[[InputSpec, int, Random], Tensor] | None = None
    training: TrainingConfig = TOY_TRAINING
    margin: float = 0.1


def private_samples(setting: ToySetting, case: Case, truth: Mapping[str, Truth]) -> Samples:
    """Return what a perfect attack would give for a case: its truth, or else the private samples of its class."""
    known = truth.get(case.id)
    if known is not None and known.label is None:
        return known.sample
    return _of_label(setting.dataset.split("private"), true_label(case, truth))


def held_out_samples(setting: ToySetting, case: Case, truth: Mapping[str, Truth]) -> Samples:
    """Return held-out samples of a case's class; where it has none, what a perfect attack would give."""
    label = true_label(case, truth)
    if label is None:
        return private_samples(setting, case, truth)
    return _of_label(setting.dataset.split("holdout"), label)


def _of_label(split: Split, label: int | None) -> Samples:
    if label is None or split.labels is None:
        return split.take(range(len(split)))
    return split.take(split.labels.eq(label).nonzero().flatten())


def tensor_problem(samples: Samples, shape: tuple[int, ...] | None, low: float, high: float) -> str | None:
    """Tell what is wrong with samples that should be a float tensor (N, *shape) in [low, high]."""
    if not isinstance(samples, Tensor):
        return f"samples are {type(samples).__name__}, not a tensor"
    if samples.dtype != torch.float32:
        return f"samples are {samples.dtype}, not float32"
    if samples.ndim < 2 or (shape is not None and tuple(samples.shape[1:]) != shape):
        return f"samples have shape {tuple(samples.shape)}, not (N, {', '.join(map(str, shape or ('...',)))})"
    if not bool(torch.isfinite(samples).all()):
        return "samples are not finite"
    smallest, largest = (float(value) for value in samples.detach().aminmax()) if len(samples) else (low, low)
    if smallest < low or largest > high:
        return f"samples lie in [{smallest:.4g}, {largest:.4g}], outside the canonical [{low:g}, {high:g}]"
    return None
