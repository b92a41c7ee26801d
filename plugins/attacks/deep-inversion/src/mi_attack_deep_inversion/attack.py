"""DeepInversion: pixels whose statistics inside the target are those that its batch normalisation remembers.

Yin, Molchanov, Li, Alvarez, Mallya, Hoiem, Jha, Kautz: "Dreaming to Distill: Data-free Knowledge Transfer via
DeepInversion", CVPR 2020 (arXiv:1912.08795).

Threat model: white box; no data at all. The target must have BatchNorm2d layers with running statistics.

1. A group of images begins as noise and descends cross entropy, the distance of its statistics from the remembered ones
   in every batch normalisation, total variation and norm, under random shifts and mirror images.
2. First at half the size, then at the full size, each with Adam that warms up and falls along a cosine.
3. Adaptive (``competition_weight``): a small student learns from such images of all classes; then the images also have
   to be those on which it disagrees with the target.

Fidelity notes (paper / authors' code / here)
- Groups: the paper's batch mixes classes, and a batch normalisation remembers all classes together. Here every case has
  a batch of its own, its *group*: ``restarts`` images of its class, which it gives back, and ``companions`` of others,
  drawn by the case's own stream, which exist for their statistics alone. So no case depends on which others are in the
  run. It costs a factor of (restarts + companions) / restarts. ``companions=0`` gives groups of one class, which cannot
  have the statistics of all: on the bundled digits a judge recognises 24 % of such images and 94 % of mixed ones.
- Loss of a group: as published for a batch (mean cross entropy, joint norms of total variation). Groups are summed.
- Half size: the target resizes what it is given to its own size, so it sees a coarse image at full size; the paper's
  sees a small one. It saves no time.
- Jitter, mirror: one draw for each group and step, as published. Grey images are not mirrored unless asked for.
- Penalties and clipping are computed in the target's normalised pixels, as published.
- Labels of companions: a random order of the other classes, repeated; the authors draw them, from a list of 41.
- Adaptive variant: the paper's student grows with the images that it helps to make, the authors' code takes a given
  network. Here a small one is trained in the preparation on groups of all classes, by the distillation of
  `mi_image.students` (temperature 1; paper: 3), in ``student_rounds`` rounds, and stays as it is while cases are
  attacked. Jensen-Shannon is computed as defined, on softmaxes of temperature 3 clipped to [.01, .99].
- Half precision: statistics, norms and divergences stay in float32.
- Images are scored by the target's confidence in the unchanged image; all count in the evaluation.
- Presets: ``paper`` is the authors' setting for ImageNet, ``paper-cifar`` the one for CIFAR-10. ``default``,
  ``adaptive`` and ``smoke`` are ours, for small pictures: fewer steps, shifts of a pixel, heavier statistics and total
  variation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mi_attack_deep_inversion.batch_norm import batch_norm_layers
from mi_attack_deep_inversion.config import DeepInversionConfig
from mi_attack_deep_inversion.students import StudentWork
from mi_attack_deep_inversion.synthesis import Synthesis
from mi_image.students import restore_students
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import confidences, reconstructions
from micore.kit.search import Found
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

SMALL = {
    "restarts": 10, "companions": 40, "low_steps": 150, "steps": 150, "learning_rate": 0.1, "warm_up": 15,
    "statistics_weight": 1.0, "total_variation_weight": 0.03, "jitter": 1,
}  # fmt: skip


class DeepInversion:
    """The attack DeepInversion (see the module's documentation)."""

    Config: ClassVar[type[Config]] = DeepInversionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": SMALL,
        "smoke": {**SMALL, "restarts": 4, "companions": 12, "low_steps": 25, "steps": 25, "warm_up": 5},
        "paper": {},
        "paper-cifar": {
            "restarts": 16, "companions": 240, "low_steps": 0, "steps": 2000, "learning_rate": 0.1,
            "statistics_weight": 10.0, "total_variation_weight": 2.5e-5, "jitter": 2,
        },
        "adaptive": {**SMALL, "competition_weight": 0.2},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(DeepInversionConfig.model_fields)

    def __init__(self, config: DeepInversionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Train the student that images compete with, in the adaptive variant; otherwise only look at the target.

        Raises: ModelError for a target without batch-norm statistics; BudgetExceeded.
        """
        batch_norm_layers(target.module.inner)
        if self.config.competition_weight == 0:
            return None
        return Prepared(state={"student": StudentWork(target, self.config).run(runtime)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search a group for each case, and give back its images of the case's own class."""
        synthesis = Synthesis(target, self.config, self._student(prepared, runtime))
        groups = torch.stack([self._labels(case, target.n_classes, runtime) for case in cases])
        found, images = synthesis.run(cases, groups, target.ledger, runtime)
        restarts = self.config.restarts
        own, labels = images[:, :restarts].flatten(0, 1), groups[:, :restarts].flatten()
        owners = [case.id for case in cases for _ in range(restarts)]
        scores, scored = confidences(target, own, labels, owners, runtime)
        yield from reconstructions(cases, _of_each_image(found, own, restarts), own, scores, scored=scored)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: all images of a group in each step, then a last look at those of the class."""
        config = self.config
        searched = self._group_size(n_classes) * (config.low_steps + config.steps)
        preparation = StudentWork.cost(config, n_classes) if config.competition_weight else Spending()
        return Forecast(
            preparation=preparation,
            per_case=Spending(queries=searched + config.restarts, gradients=searched),
        )

    def _group_size(self, n_classes: int) -> int:
        return self.config.group_size if n_classes > 1 else self.config.restarts

    def _labels(self, case: Case, n_classes: int, runtime: Runtime) -> Tensor:
        """Return the labels of a case's group: its own, then others in a random order that repeats."""
        config, own = self.config, case.label or 0
        labels = torch.full((self._group_size(n_classes),), own)
        if n_classes > 1:
            order = runtime.rng("companions", case.id).permutation(n_classes - 1)
            order = order + (order >= own)
            labels[config.restarts :] = order.repeat(-(-config.companions // len(order)))[: config.companions]
        return labels.to(runtime.device)

    def _student(self, prepared: Prepared | None, runtime: Runtime) -> nn.Module | None:
        if self.config.competition_weight == 0:
            return None
        if prepared is None:
            raise DataError("deep-inversion with competition_weight was not prepared")
        return restore_students(prepared.state["student"], runtime)[0]


def _of_each_image(found: Found, images: Tensor, restarts: int) -> Found:
    """Return what was found of groups as what was found of their own images."""
    return replace(
        found,
        values=images,
        losses=found.losses.repeat_interleave(restarts),
        steps=found.steps.repeat_interleave(restarts),
        statuses=[status for status in found.statuses for _ in range(restarts)],
        history=found.history.repeat_interleave(restarts, dim=0),
    )
