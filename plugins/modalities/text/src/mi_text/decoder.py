"""The adversary's decoder: a causal transformer that writes a text after a prefix of vectors.

Inverters of embeddings, correctors and inverters of prompts are this network with prefixes of their own making.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_text.sampling import Sampling, choose
from mi_text.tokenizing import BEGIN_ID, END_ID, PAD_ID
from mi_text.transformer import Cache, Size, Transformer


class Condition(nn.Module):
    """A linear map of a vector (N, d) to ``places`` vectors of the decoder's width, (N, places, width)."""

    def __init__(self, inputs: int, width: int, places: int = 1) -> None:
        super().__init__()
        self.places = places
        self.linear = nn.Linear(inputs, places * width)

    def forward(self, values: Tensor) -> Tensor:
        """Return the prefix."""
        found: Tensor = self.linear(values)
        places: Tensor = found.unflatten(1, (self.places, -1))
        return places


class Decoder(nn.Module):
    """Writes texts after a prefix (N, P, width); the last vector of the prefix gives the first token.

    conditions: by name, how many numbers a vector of this kind has, and how many vectors of the prefix it becomes.
    """

    def __init__(self, size: Size, conditions: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.network = Transformer(size)
        self.conditions = nn.ModuleDict(
            {name: Condition(inputs, size.width, places) for name, (inputs, places) in conditions.items()}
        )

    def prefix(self, values: Mapping[str, Tensor], context: Tensor | None = None) -> Tensor:
        """Return the prefix of conditions (N, d) in their order, behind the tokens of a context (N, T), if any."""
        parts = [self.network.embed(context)] if context is not None else []
        parts += [self.conditions[name](values[name]) for name in values]
        return torch.cat(parts, dim=1)

    def losses(self, prefix: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of each text and its end, (N,).

        tokens: int64 (N, T), padded at the end. smoothing: of the labels, over the vocabulary.
        """
        vectors = torch.cat([prefix, self.network.embed(tokens)], dim=1)
        states, _ = self.network(vectors)
        logits = self.network.logits(states[:, prefix.shape[1] - 1 :])
        following = functional.pad(tokens, (0, 1), value=PAD_ID)
        lengths = (tokens != PAD_ID).sum(dim=1)
        following = following.scatter(1, lengths[:, None], END_ID)
        found = functional.cross_entropy(
            logits.transpose(1, 2), following, reduction="none", ignore_index=PAD_ID, label_smoothing=smoothing
        )
        return found.sum(dim=1) / (lengths + 1)

    @torch.no_grad()
    def write(self, prefix: Tensor, sampling: Sampling, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return texts as ids (N, max_tokens), padded, and their log-likelihoods (N,) in nats, their ends included.

        uniform: numbers in [0, 1), (max_tokens, N): each row's own, so that it does not depend on the others.
        """
        states, cache = self.network(prefix)
        found = torch.full((len(prefix), sampling.max_tokens), PAD_ID, device=prefix.device)
        total = torch.zeros(len(prefix), device=prefix.device)
        running = torch.ones(len(prefix), dtype=torch.bool, device=prefix.device)
        for step in range(sampling.max_tokens):
            token, likelihood = self._next(states[:, -1], sampling, step, uniform[step])
            total += torch.where(running, likelihood, 0.0)
            running = running & (token != END_ID)
            found[:, step] = torch.where(running, token, PAD_ID)
            if step + 1 == sampling.max_tokens or (step % _LOOK_EVERY == _LOOK_EVERY - 1 and not bool(running.any())):
                break
            states, cache = self._follow(token, cache)
        return found, total

    def _next(self, states: Tensor, sampling: Sampling, step: int, uniform: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.logits(states)
        logits[:, [PAD_ID, BEGIN_ID]] = -torch.inf
        token = choose(logits, sampling, step, uniform)
        return token, logits.log_softmax(dim=1).gather(1, token[:, None])[:, 0]

    def _follow(self, token: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        states, kept = self.network(self.network.embed(token[:, None]), cache=cache)
        return states, kept


_LOOK_EVERY = 8
"""Tokens between two looks at whether all texts have ended: each waits for the device."""


def standardised(vectors: Tensor, statistics: Sequence[Tensor]) -> Tensor:
    """Return vectors (N, d) shifted and scaled by a mean and a deviation (d,) of public ones."""
    mean, deviation = statistics
    return (vectors - mean.to(vectors.device)) / deviation.to(vectors.device)


def statistics_of(vectors: Tensor) -> list[Tensor]:
    """Return the mean (d,) and the mean deviation over all dimensions (1,) of public vectors (N, d)."""
    return [vectors.mean(dim=0), vectors.std(dim=0).mean()[None].clamp(min=1e-6)]
