"""A masked language model as a target: it fills in what is hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_text.classifiers import seen
from mi_text.tokenizing import MASK_ID, PAD_ID, SPECIALS
from mi_text.transformer import Size, Transformer
from micore.errors import UsageError
from micore.threat import Access

FILL = "fill"
HIDDEN_SHARE = 0.15


class MaskedLanguageModel(nn.Module):
    """A small BERT. Inputs are ids (N, T), padded; hidden tokens are ``<mask>``.

    ``forward``: logits (N, V) of the first hidden token. Service ``fill`` (access scores): the distributions of all
    positions, float32 (N, T, V).
    """

    services: ClassVar[Mapping[str, Access]] = {FILL: Access.SCORES}

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.network = Transformer(size, causal=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, V) of the first ``<mask>``, of the first token where there is none."""
        place = (inputs == MASK_ID).to(torch.uint8).argmax(dim=1)
        states = self._states(inputs)
        return self.network.logits(states[torch.arange(len(inputs), device=inputs.device), place])

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the distribution of the first hidden token, (N, V)."""
        logits: Tensor = self(inputs)
        return logits.softmax(dim=1)

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        """Return the distributions of all positions, (N, T, V)."""
        if name != FILL:
            raise UsageError(f"a masked language model offers no {name!r}")
        return self.network.logits(self._states(inputs)).softmax(dim=2)

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of hidden tokens of each text, (N,), in nats.

        15 % of the tokens are hidden, at least one: four of five become ``<mask>``, one of ten another token, one stays
        (Devlin et al., 2019, section 3.1). In training the global generator chooses; in evaluation every seventh token
        is hidden, so that a loss is the same whenever it is measured.
        """
        hidden, shown = self._hide(inputs)
        logits = self.network.logits(self._states(shown))
        losses = functional.cross_entropy(logits.transpose(1, 2), inputs, reduction="none") * hidden
        return losses.sum(dim=1) / hidden.sum(dim=1).clamp(min=1)

    def _states(self, inputs: Tensor) -> Tensor:
        states: Tensor = self.network(self.network.embed(inputs), visible=seen(inputs))[0]
        return states

    def _hide(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is to be guessed, bool (N, T), and the inputs with it hidden."""
        tokens = inputs != PAD_ID
        if not self.training:
            turn = torch.arange(inputs.shape[1], device=inputs.device) % 7 == 0
            hidden = tokens & turn[None]
            return hidden, inputs.masked_fill(hidden, MASK_ID)
        chance = torch.rand(inputs.shape, device=inputs.device).masked_fill(~tokens, 2.0)
        hidden = (chance < HIDDEN_SHARE) | (chance == chance.amin(dim=1, keepdim=True)) & tokens
        fate = torch.rand(inputs.shape, device=inputs.device)
        others = torch.randint(len(SPECIALS), self.network.size.vocabulary, inputs.shape, device=inputs.device)
        shown = torch.where(hidden & (fate < 0.8), MASK_ID, inputs)
        return hidden, torch.where(hidden & (fate >= 0.8) & (fate < 0.9), others, shown)
