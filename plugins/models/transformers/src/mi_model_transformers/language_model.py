"""Causal language models: the next token's distribution, continuations, likelihoods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from mi_model_transformers.encoder import offered
from mi_text.language_model import GENERATE, LIKELIHOODS
from mi_text.sampling import Sampling, choose
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.runtime import Random
from micore.threat import Access

LARGEST = 2**27
"""Logits that are held at a time: 512 MiB in float32; large vocabularies would need gigabytes for a batch."""

CERTAIN = -1e-30
"""Log-likelihood of a token that is certain: exactly 0 stands for padding."""


class CausalTransformer(nn.Module):
    """A causal language model, in form that of `mi_text.language_model.CausalLanguageModel`.

    Inputs: ids (N, T), padded at the end, without marks of beginning and end: it adds them. Relaxed texts,
    distributions of tokens (N, T, V), are taken as full. ``forward``: next-token logits (N, V) after each text.

    begin_id: what stands before every text; end_ids: what ends one, the first of them in likelihoods; longest: tokens
    that the network takes.
    """

    comes_trained = True
    services: ClassVar[Mapping[str, Access]] = {GENERATE: Access.LABEL, LIKELIHOODS: Access.SCORES}

    def __init__(
        self, network: Any, own_input: InputSpec, *, begin_id: int, end_ids: Sequence[int], longest: int
    ) -> None:
        super().__init__()
        self.network = network
        self.own_input = own_input
        self.begin_id, self.end_ids = begin_id, tuple(end_ids)
        self.pad_id = int(own_input.options["pad_id"])
        self.room = longest - 1 - own_input.shape[0]
        # a checkpoint's own settings would change the distribution
        network.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the token after each text, (N, V)."""
        found = []
        for rows in inputs.split(self._rows_at_a_time(inputs)):
            lengths = self._lengths(rows)
            found.append(self._logits(rows)[torch.arange(len(rows), device=rows.device), lengths])
        return torch.cat(found)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the distribution of the token after each text, (N, V)."""
        logits: Tensor = self(inputs)
        return logits.softmax(dim=1)

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of the tokens of each text and of its end, (N,), in nats."""
        return -self._log_likelihoods(inputs).sum(dim=1) / (self._lengths(inputs) + 1)

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        """Carry a service out.

        likelihoods: the log-likelihood of each token of each text and of its end, float32 (N, T + 1); 0 for padding.
        generate (sampling: `Sampling`, rng: `Random`, one stream for the call): the ids with which each text goes on,
        int64 (N, max_tokens), padded after their end.
        """
        if name == LIKELIHOODS:
            return self._log_likelihoods(inputs)
        if name == GENERATE:
            return self._generate(inputs, **options)
        raise UsageError(f"a language model offers no {name!r}")

    def _lengths(self, inputs: Tensor) -> Tensor:
        """Return how many tokens each text has before its padding, (N,)."""
        if inputs.is_floating_point():
            return torch.full((len(inputs),), inputs.shape[1], device=inputs.device)
        places = torch.arange(1, inputs.shape[1] + 1, device=inputs.device)
        return functional.pad((inputs != self.pad_id) * places, (1, 0)).amax(dim=1)

    def _logits(self, inputs: Tensor) -> Tensor:
        """Return the logits after the beginning and each token, (N, T + 1, V)."""
        visible = torch.arange(inputs.shape[1] + 1, device=inputs.device)[None] <= self._lengths(inputs)[:, None]
        logits: Tensor = self.network(**offered(self.network, self._begun(inputs), visible)).logits.float()
        return logits

    def _begun(self, inputs: Tensor) -> Tensor:
        """Return texts with the mark of the beginning before them."""
        begin = torch.full((len(inputs), 1), self.begin_id, device=inputs.device)
        if inputs.is_floating_point():
            return torch.cat([functional.one_hot(begin, inputs.shape[2]).to(inputs.dtype), inputs], dim=1)
        return torch.cat([begin, inputs], dim=1)

    def _rows_at_a_time(self, inputs: Tensor) -> int:
        return max(1, LARGEST // ((inputs.shape[1] + 1) * int(self.network.config.vocab_size)))

    def _log_likelihoods(self, inputs: Tensor) -> Tensor:
        parts = [self._some_likelihoods(rows) for rows in inputs.split(self._rows_at_a_time(inputs))]
        return torch.cat(parts)

    def _some_likelihoods(self, inputs: Tensor) -> Tensor:
        lengths = self._lengths(inputs)
        following = functional.pad(inputs, (0, 1), value=self.pad_id)
        following[torch.arange(len(inputs), device=inputs.device), lengths] = self.end_ids[0]
        there = torch.arange(following.shape[1], device=inputs.device)[None] <= lengths[:, None]
        found = self._logits(inputs).log_softmax(dim=2).gather(2, following[:, :, None])[:, :, 0]
        return found.clamp(max=CERTAIN).masked_fill(~there, 0.0)

    def _generate(self, inputs: Tensor, *, sampling: Sampling, rng: Random) -> Tensor:
        """Go on with texts; a text stops where the longest possible one would fill the network."""
        uniform = rng.uniform((sampling.max_tokens, len(inputs))).to(inputs.device)
        found = torch.full((len(inputs), sampling.max_tokens), self.pad_id, device=inputs.device)
        if not len(inputs):
            return found
        lengths = self._lengths(inputs)
        width = int(lengths.max())
        tokens = self._begun(inputs[:, :width])
        # prompts end in the same column, so that all rows go on together
        columns = torch.arange(width + 1, device=inputs.device)[None] - (width - lengths)[:, None]
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=min(sampling.max_tokens, self.room), do_sample=False, num_beams=1,
            eos_token_id=list(self.end_ids), pad_token_id=self.pad_id,
        )  # fmt: skip
        chosen = self.network.generate(
            tokens.gather(1, columns.clamp(min=0)), attention_mask=(columns >= 0).long(), generation_config=settings,
            logits_processor=LogitsProcessorList([_Chosen(sampling, uniform, self._forbidden())]),
        )[:, width + 1 :]  # fmt: skip
        ended = torch.isin(chosen, torch.tensor(self.end_ids, device=chosen.device)).cummax(dim=1).values
        found[:, : chosen.shape[1]] = chosen.masked_fill(ended, self.pad_id)
        return found

    def _forbidden(self) -> list[int]:
        """Return the marks that no text goes on with."""
        return [token for token in {self.pad_id, self.begin_id} if token not in self.end_ids]


class _Chosen(LogitsProcessor):
    """Leave one token of each row possible: the one that `choose` takes."""

    def __init__(self, sampling: Sampling, uniform: Tensor, forbidden: Sequence[int]) -> None:
        self.sampling, self.uniform, self.forbidden = sampling, uniform, list(forbidden)
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (N, V) that are 0 for the token that is chosen, and otherwise minus infinity."""
        scores = scores.float().index_fill(1, torch.tensor(self.forbidden, device=scores.device).long(), -torch.inf)
        token = choose(scores, self.sampling, self.step, self.uniform[self.step])
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)
