"""What evaluators are given: subjects to judge, and all that judges may know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micore.errors import ModelError
from micore.records import Reconstruction, Samples, Truth

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micore.artifacts import Bundle
    from micore.contracts import Dataset, Modality
    from micore.external import HasFace

IDENTITY_DIGITS = 12
"""Digits of a fingerprint that stand for a judge in the name of its figures."""

PANEL_DIGITS = 6
"""As many for each judge where several judge together: ``consensus@1f2e3d-4c5b6a-778899``."""

PANEL = 3
"""The fewest evaluator models that judge together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorModel:
    """An independent classifier that judges.

    module: on the run's device, in eval mode, without gradients; adapter: from canonical samples to
    its input; notes: what its figures must be read with (such as a shared architecture). fresh: builds an untrained
    network of the same architecture and input for so many classes, from the global generator, on the CPU.
    """

    bundle: Bundle
    module: nn.Module
    adapter: Callable[[Samples], Tensor]
    notes: tuple[str, ...] = ()
    fresh: Callable[[int], nn.Module] | None = None

    @property
    def identity(self) -> str:
        """The first digits of the bundle's fingerprint: what tells its figures from those of another judge."""
        return self.bundle.fingerprint[:IDENTITY_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an evaluator judges: reconstructions of the attack or of a control."""

    name: str
    reconstructions: Sequence[Reconstruction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """All that judges may know and adversaries may not.

    dataset: the private data; target: what is known of the attacked one (for the check of independence);
    evaluator_model: the independent classifier, when the evaluator asked for one; evaluator_models: all of
    the run, when it judges with all together.
    truth: by case id, for goals that recover an instance; evidence is in the judged cases themselves.
    """

    modality: Modality
    dataset: Dataset
    target: HasFace | None
    evaluator_model: EvaluatorModel | None = None
    evaluator_models: Sequence[EvaluatorModel] = ()
    truth: Mapping[str, Truth] = field(default_factory=dict)

    def judge(self) -> EvaluatorModel:
        """Return the evaluator model.

        Raises: ModelError when the run has none.
        """
        if self.evaluator_model is None:
            raise ModelError("this evaluator needs an evaluator model", hint="give --evaluator-model")
        return self.evaluator_model

    def panel(self) -> Sequence[EvaluatorModel]:
        """Return all evaluator models, at least `PANEL`, in the order of the run.

        Raises: ModelError when there are fewer.
        """
        if len(self.evaluator_models) < PANEL:
            raise ModelError(
                f"this evaluator judges with at least {PANEL} evaluator models, not {len(self.evaluator_models)}",
                hint=f"--judges {PANEL}",
            )
        return self.evaluator_models


def panel_identity(judges: Sequence[EvaluatorModel]) -> str:
    """Return what tells the figures of several judges together from those of others."""
    return "-".join(judge.identity[:PANEL_DIGITS] for judge in judges)
