"""No answer is surer than a cap. There is no paper behind it, and an adversary with white-box access does not mind it.

It shows the form of a defense at inference: the order of the classes stays, and with it the accuracy.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from micore.contracts import Config, Defense, Samples


class AcmeCapConfig(Config):
    """Settings of the defense."""

    cap: float = Field(0.9, gt=0.5, le=1, description="Highest score that is shown")


class AcmeCap(Defense):
    """Cap the highest score and share the rest among the others in proportion to theirs."""

    Config: ClassVar[type[Config]] = AcmeCapConfig

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return capped scores (N, classes), still summing to one in each row."""
        highest, best = scores.max(dim=1, keepdim=True)
        is_best = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
        others = scores.masked_fill(is_best, 0.0) + 1e-9 * ~is_best
        shared = others / others.sum(dim=1, keepdim=True) * (1 - self.config.cap)
        return torch.where(highest > self.config.cap, torch.where(is_best, self.config.cap, shared), scores)
