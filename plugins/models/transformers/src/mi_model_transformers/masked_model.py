"""Masked language models: what is hidden in a text is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mi_model_transformers.encoder import offered, seen
from mi_text.masked_model import FILL
from micore.errors import ModelError, UsageError
from micore.inputs import InputSpec
from micore.threat import Access


class MaskedTransformer(nn.Module):
    """A masked language model, in form that of `mi_text.masked_model.MaskedLanguageModel`.

    Inputs: ids int64 (N, T), padded at the end; hidden tokens are the option ``mask_id`` of ``own_input``.
    ``forward``: logits (N, V) of the first hidden token. Service ``fill`` (access scores): the distributions of all
    positions, float32 (N, T, V).
    """

    comes_trained = True
    services: ClassVar[Mapping[str, Access]] = {FILL: Access.SCORES}

    def __init__(self, network: Any, own_input: InputSpec) -> None:
        super().__init__()
        if "mask_id" not in own_input.options:
            raise ModelError(
                "the tokenizer has no token for what is hidden", hint="set its mask_token, and save it again"
            )
        self.network = network
        self.own_input = own_input

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, V) of the first hidden token, of the first token where there is none."""
        place = (inputs == int(self.own_input.options["mask_id"])).to(torch.uint8).argmax(dim=1)
        return self._logits(inputs)[torch.arange(len(inputs), device=inputs.device), place]

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the distribution of the first hidden token, (N, V)."""
        logits: Tensor = self(inputs)
        return logits.softmax(dim=1)

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        """Return the distributions of all positions, (N, T, V)."""
        if name != FILL:
            raise UsageError(f"a masked language model offers no {name!r}")
        return self._logits(inputs).softmax(dim=2)

    def _logits(self, inputs: Tensor) -> Tensor:
        visible = seen(inputs, int(self.own_input.options["pad_id"]))
        logits: Tensor = self.network(**offered(self.network, inputs, visible)).logits.float()
        return logits
