"""A causal language model as a target: it answers with the next token's distribution, and goes on with texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_text.sampling import Sampling, choose
from mi_text.tokenizing import BEGIN_ID, END_ID, PAD_ID
from mi_text.transformer import Size, Transformer
from micore.errors import UsageError
from micore.runtime import Random
from micore.threat import Access

GENERATE, LIKELIHOODS = "generate", "likelihoods"


class CausalLanguageModel(nn.Module):
    """A small GPT. Inputs are ids (N, T), padded at the end, without marks of beginning and end: it adds them.

    ``forward``: next-token logits (N, V) after each text. Services: ``generate`` (access label) and ``likelihoods``
    (access scores), see `serve`.
    """

    services: ClassVar[Mapping[str, Access]] = {GENERATE: Access.LABEL, LIKELIHOODS: Access.SCORES}

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.network = Transformer(size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of the token after each text, (N, V); relaxed texts (N, T, V) are taken as full."""
        states, lengths = self._states(inputs)
        rows = torch.arange(len(states), device=states.device)
        return self.network.logits(states[rows, lengths])

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the distribution of the token after each text, (N, V)."""
        logits: Tensor = self(inputs)
        return logits.softmax(dim=1)

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of the tokens of each text and of its end, (N,), in nats."""
        return -_mean(*self._log_likelihoods(inputs))

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        """Carry a service out.

        likelihoods: the log-likelihood of each token of each text and of its end, float32 (N, T + 1); 0 for padding.
        generate (sampling: `Sampling`, rng: `Random`, one stream for the call): the ids with which each text goes on,
        int64 (N, max_tokens), padded after their end.
        """
        if name == LIKELIHOODS:
            return self._log_likelihoods(inputs)[0]
        if name == GENERATE:
            return self._generate(inputs, **options)
        raise UsageError(f"a language model offers no {name!r}")

    def _states(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states after the beginning and each token, (N, T + 1, width), and the lengths (N,)."""
        begin = torch.full((len(inputs), 1), BEGIN_ID, device=inputs.device)
        if inputs.is_floating_point():
            begin = functional.one_hot(begin, inputs.shape[2]).to(inputs.dtype)
        vectors = self.network.embed(torch.cat([begin, inputs], dim=1))
        full = torch.full((len(inputs),), inputs.shape[1], device=inputs.device)
        lengths = full if inputs.is_floating_point() else (inputs != PAD_ID).sum(dim=1)
        return self.network(vectors)[0], lengths  # causal: nothing looks at the padding behind it

    def _log_likelihoods(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood of each token and the end, (N, T + 1), and which of them are there."""
        states, lengths = self._states(inputs)
        following = functional.pad(inputs, (0, 1), value=PAD_ID)
        following[torch.arange(len(inputs), device=inputs.device), lengths] = END_ID
        there = following != PAD_ID
        found = self.network.logits(states).log_softmax(dim=2).gather(2, following[:, :, None])[:, :, 0]
        return found.masked_fill(~there, 0.0), there

    def _generate(self, inputs: Tensor, *, sampling: Sampling, rng: Random) -> Tensor:
        uniform = rng.uniform((sampling.max_tokens, len(inputs)))
        tokens, visible, positions = _flush_right(inputs)
        lengths, room = positions[:, -1], self.network.size.tokens - 1
        states, cache = self.network(self.network.embed(tokens), visible=visible, positions=positions)
        found = torch.full((len(inputs), sampling.max_tokens), PAD_ID, device=inputs.device)
        running = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        for step in range(sampling.max_tokens):
            logits = self.network.logits(states[:, -1])
            logits[:, [PAD_ID, BEGIN_ID]] = -torch.inf
            token = choose(logits, sampling, step, uniform[step])
            running = running & (token != END_ID) & (lengths + step < room)
            found[:, step] = torch.where(running, token, PAD_ID)
            if step + 1 == sampling.max_tokens or (step % _LOOK_EVERY == _LOOK_EVERY - 1 and not bool(running.any())):
                break
            visible = torch.cat([visible, running[:, None]], dim=1)
            place = (lengths + 1 + step).clamp(max=room)
            states, cache = self.network(
                self.network.embed(token[:, None]), visible=visible, cache=cache, positions=place[:, None]
            )
        return found


def _flush_right(prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put the beginning before each prompt (N, T) and let all end in the last column, so that they go on together.

    Returns the tokens (N, T + 1), which of them are there, and their positions.
    """
    lengths = (prompts != PAD_ID).sum(dim=1)
    begun = functional.pad(prompts[:, : int(lengths.max())] if len(prompts) else prompts, (1, 0), value=BEGIN_ID)
    last = begun.shape[1] - 1
    columns = torch.arange(last + 1, device=prompts.device)[None] - (last - lengths)[:, None]
    return begun.gather(1, columns.clamp(min=0)), columns >= 0, columns.clamp(min=0)


_LOOK_EVERY = 8
"""Tokens between two looks at whether all texts have ended: each waits for the device."""


def _mean(values: Tensor, there: Tensor) -> Tensor:
    return values.sum(dim=1) / there.sum(dim=1)
