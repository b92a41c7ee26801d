"""The student of the adaptive variant: a small network that learns from synthesised images of all classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mi_attack_deep_inversion.config import DeepInversionConfig
from mi_attack_deep_inversion.synthesis import Synthesis
from mi_image.students import StudentSettings, restore_students, student_states
from micore.contracts import Case
from micore.errors import BudgetExceeded, ModelError
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Ledger, Spending

__all__ = ["StudentWork"]

NETWORK = "small-cnn"


@dataclass(frozen=True)
class StudentWork:
    """Rounds of two stages: synthesise images of all classes, then train the student on all images so far."""

    target: Target
    config: DeepInversionConfig

    def run(self, runtime: Runtime) -> Mapping[str, Any]:
        """Return the student's state, for `mi_image.students.restore_students`; resumes at the last stage.

        Raises: BudgetExceeded; ModelError when the target's images are too small for the student.
        """
        stages = Stages(runtime)
        state: Mapping[str, Any] = {}
        collected: list[Mapping[str, Any]] = []
        for number in range(self.config.student_rounds):
            student = restore_students(state, runtime)[0] if state else None
            found = stages.run(f"images-{number}", lambda stage: self._images(number, student, stage))  # noqa: B023
            collected.append(found)
            state = stages.run(f"student-{number}", lambda stage: self._learned(collected, stage))
        return state

    @staticmethod
    def cost(config: DeepInversionConfig, n_classes: int) -> Spending:
        """Count what the target is asked: every step on every image, and once for its answers."""
        images = _n_groups(config, n_classes) * config.group_size * config.student_rounds
        searched = images * (config.low_steps + config.steps)
        return Spending(queries=searched + images, gradients=searched)

    def _images(self, number: int, student: nn.Module | None, runtime: Runtime) -> dict[str, Tensor]:
        """Synthesise mixed groups, one by one, and ask the target for its answers."""
        config, n_classes = self.config, self.target.n_classes
        n_groups = _n_groups(config, n_classes)
        labels = torch.arange(n_groups * config.group_size, device=runtime.device) % n_classes
        cases = [Case(id=f"student-{number}-{group}", goal="class") for group in range(n_groups)]
        synthesis, alone = Synthesis(self.target, config, student), replace(runtime, tile=1)
        # These groups are no cases of the run: another ledger takes their names, the target's own shares the cost.
        # That other one would also know of padding, so there is none: groups go one by one.
        found, images = synthesis.run(cases, labels.view(n_groups, -1), Ledger(), alone)
        if not found.complete:
            raise BudgetExceeded("the budget ended while the student's images were made", hint="raise --budget-queries")
        answers = torch.cat([self.target.scores(group) for group in images])
        return {"images": images.flatten(0, 1), "answers": answers}

    def _learned(self, collected: list[Mapping[str, Any]], runtime: Runtime) -> dict[str, Any]:
        images, answers = (
            torch.cat([part[name].to(runtime.device) for part in collected]) for name in ("images", "answers")
        )
        config = self.config
        settings = StudentSettings(
            network=NETWORK, widths=(config.student_width,), epochs=config.student_epochs,
            learning_rate=config.student_learning_rate,
        )  # fmt: skip
        try:
            return student_states(images, answers, settings, runtime)
        except ValueError as error:
            raise ModelError(f"deep-inversion: {error}", hint="competition_weight=0 needs no student") from error


def _n_groups(config: DeepInversionConfig, n_classes: int) -> int:
    return -(-config.student_images * n_classes // config.group_size)
