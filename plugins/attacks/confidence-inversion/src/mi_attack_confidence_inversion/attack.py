"""CSMIA: the sensitive value by the target's correctness and confidence.

Mehnaz, Dibbo, Kabir, Li, Bertino: "Are Your Sensitive Attributes Private? Novel Model Inversion Attribute Inference
Attacks on Classification Models", USENIX Security 2022 (arXiv:2201.09370), section 4.1.

Threat model: the target's scores; of a person all columns but one, and the true label. The target is asked about the
person with each value. Where it is right with one value alone, this is given back (case 1); where with several, the one
of these with the highest confidence (case 2); where with none, the one with the lowest confidence (case 3).

Fidelity notes (paper, authors' code / here)
- Equal confidences: a random one / the more frequent value.
- All values are ranked, so that judges see a second choice: first those with which the target is right, by rising
  doubt, then the others by falling doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_tabular.attack import Ask, AttributeAttack
from mi_tabular.evidence import KnownRow
from micore.contracts import Config, NoConfig, Prepared
from micore.target import Target

TIE = 1e-6
"""Differences of confidence that count as none: then frequencies decide."""


class ConfidenceScore(AttributeAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = NoConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {}}

    def ask(self, target: Target) -> Ask:
        """Ask for scores."""
        return target.scores

    def ranking(self, known: KnownRow, answers: Tensor, prepared: Prepared | None) -> Tensor:
        """Rank by `surest`."""
        return surest(answers, known.label, known.frequencies)


def surest(scores: Tensor, label: int, frequencies: Tensor) -> Tensor:
    """Return how sure each value is, (values,), by the target's scores (values, classes) for the row with it.

    Of values with which it answers the label 1 plus its confidence, of others less than 0.
    """
    confidence, answer = scores.double().max(dim=1)
    return torch.where(answer == label, 1 + confidence, -confidence) + TIE * frequencies.double()
