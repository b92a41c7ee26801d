"""The search for groups of images (sections 3.2 and 3.3 of the paper): one row of the search is a whole group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_attack_deep_inversion.batch_norm import batch_norm_layers, logits_and_inputs, statistics_distance
from mi_attack_deep_inversion.competition import agreement
from mi_attack_deep_inversion.config import DeepInversionConfig
from mi_attack_deep_inversion.jitter import N_NUMBERS, jittered
from mi_image.adapter import ImageAdapter
from mi_image.identity import default_flip
from mi_image.regularisers import mean_l2_norm, total_variation_l1, total_variation_l2
from micore.contracts import Case
from micore.inputs import InputSpec
from micore.kit.case_rows import make_rows, standard_normal, uniform_draws
from micore.kit.losses import cross_entropy
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import RowAdam, Schedule
from micore.kit.search import Found, Objective, RowSearch, RowStatus
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Ledger

__all__ = ["Scale", "Synthesis", "joined", "warm_up_and_cosine"]

LOW_RESOLUTION = 2
"""How much smaller the images are in the first part: the published 2 x 2 average."""


@dataclass(frozen=True)
class Scale:
    """Between pixels as the target sees them, normalised, and canonical images: the search walks in the former.

    Weights of the penalties and the unit spread of the first pixels are published for normalised pixels. A target that
    does not normalise is treated as if it mapped [0, 1] to [-1, 1].
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, spec: InputSpec, device: torch.device) -> Scale:
        """Return the scale of a target's input, (C, 1, 1) each."""
        mean, std = (torch.tensor(values or (0.5,), device=device).view(-1, 1, 1) for values in (spec.mean, spec.std))
        return cls(mean, std)

    def images(self, pixels: Tensor) -> Tensor:
        """Return canonical images of pixels (..., C, H, W); they may leave [0, 1] by rounding."""
        return pixels * self.std + self.mean

    def clip(self, pixels: Tensor) -> Tensor:
        """Return pixels (..., C, H, W) whose images lie in [0, 1]."""
        return clamp_box(pixels, -self.mean / self.std, (1 - self.mean) / self.std)


@dataclass(frozen=True)
class Synthesis:
    """The search, for one target; ``student`` takes canonical images and competes, if there is one."""

    target: Target
    config: DeepInversionConfig
    student: nn.Module | None = None

    def run(self, cases: Sequence[Case], labels: Tensor, ledger: Ledger, runtime: Runtime) -> tuple[Found, Tensor]:
        """Search a group for each case; return what was found and its images (cases, group size, C, H, W).

        labels (cases, group size): what the target should see; ledger: charges the cases. Groups in work are as many
        as fill the runtime's tile, at least one.

        Raises: ModelError for a target without batch-norm statistics.
        """
        config, spec = self.config, self.target.input_spec
        scale = Scale.of(spec, runtime.device)
        size = labels.shape[1]
        layers = batch_norm_layers(self.target.module.inner)
        tiled = replace(runtime, tile=max(1, runtime.tile // size))
        starts = scale.clip(standard_normal(cases, (1, size, *spec.shape), runtime, "pixels"))
        found: Found | None = None
        for pooling, steps in ((LOW_RESOLUTION, config.low_steps), (1, config.steps)):
            if steps == 0 or (found is not None and not found.complete):
                continue
            draw = uniform_draws(cases, 1, N_NUMBERS, runtime, f"jitter-{pooling}")
            rows = make_rows(cases, starts, draw, {"group": labels[:, None]})
            search = self._search(partial(self._losses, scale, layers, pooling), scale, steps)
            part = search.run(rows, ledger, tiled, f"images at 1/{pooling} of their size")
            found = part if found is None else joined(found, part)
            starts = found.values[:, None]
        if found is None:
            raise ValueError("no steps at all")
        return found, scale.images(found.values).clamp(0, 1)

    def _search(self, objective: Objective, scale: Scale, steps: int) -> RowSearch:
        config = self.config
        schedule = warm_up_and_cosine(steps, min(config.warm_up, steps // 2))
        return RowSearch(
            objective=objective,
            optimizer=RowAdam(learning_rate=config.learning_rate, betas=config.betas, schedule=schedule),
            steps=steps,
            constraint=lambda pixels, starts: scale.clip(pixels),
        )

    def _losses(
        self,
        scale: Scale,
        layers: Sequence[nn.BatchNorm2d],
        pooling: int,
        pixels: Tensor,
        rows: Mapping[str, Tensor],
        numbers: Tensor,
    ) -> Tensor:
        """Return the loss (B,) of groups of pixels (B, G, C, H, W), as published for a batch."""
        config, groups = self.config, len(pixels)
        seen = self._seen(pixels, numbers, pooling)
        images = scale.images(seen.flatten(0, 1))
        logits, inputs = logits_and_inputs(self.target.module, layers, images)
        losses = cross_entropy(logits, rows["group"].flatten()).view(groups, -1).mean(dim=1)
        losses = losses + config.statistics_weight * statistics_distance(
            inputs, layers[0], groups, config.first_layer_weight
        )
        if self.student is not None:
            losses = losses + config.competition_weight * agreement(logits, self._answers(images), groups)
        return losses + self._penalties(seen)

    def _seen(self, pixels: Tensor, numbers: Tensor, pooling: int) -> Tensor:
        """Return what the target sees of the pixels: smaller in the first part, and jittered."""
        if pooling > 1:
            small = functional.avg_pool2d(pixels.flatten(0, 1), pooling)
            pixels = small.unflatten(0, pixels.shape[:2])
        flip = default_flip(pixels.shape[2], self.config.flip)
        return jittered(pixels, numbers, limit=self.config.jitter // pooling, flip=flip)

    def _penalties(self, seen: Tensor) -> Tensor:
        config = self.config
        weighted: tuple[tuple[float, Callable[[Tensor], Tensor]], ...] = (
            (config.total_variation_weight, total_variation_l2),
            (config.total_variation_l1_weight, total_variation_l1),
            (config.norm_weight, mean_l2_norm),
        )
        total = torch.zeros(len(seen), device=seen.device)
        for weight, penalty in weighted:
            if weight:
                total = total + weight * penalty(seen)
        return total

    def _answers(self, images: Tensor) -> Tensor:
        """Return the student's logits of images of any size."""
        fitted = ImageAdapter(InputSpec(shape=self.target.input_spec.shape))(images)
        logits: Tensor = self.student(fitted) if self.student is not None else fitted
        return logits


def warm_up_and_cosine(total: int, warm_up: int) -> Schedule:
    """Return a schedule that rises linearly for ``warm_up`` steps, then falls to 0 along a half cosine."""

    def factors(steps: Tensor) -> Tensor:
        rising = steps / max(1, warm_up)
        fallen = (steps - 1 - warm_up).clamp(min=0) / (total - warm_up)
        return torch.where(steps <= warm_up, rising, 0.5 + 0.5 * torch.cos(math.pi * fallen))

    return factors


def joined(first: Found, second: Found) -> Found:
    """Return two parts of one search as one: a row that the second could not begin was stopped, not left waiting."""
    failed, waiting = RowStatus.FAILED, RowStatus.WAITING
    statuses = [
        failed if failed in pair else (RowStatus.STOPPED if pair[1] is waiting else pair[1])
        for pair in zip(first.statuses, second.statuses, strict=True)
    ]
    return Found(
        values=second.values,
        losses=torch.where(second.losses.isnan(), first.losses, second.losses),
        steps=first.steps + second.steps,
        statuses=statuses,
        history=torch.cat([first.history, second.history], dim=1),
    )
