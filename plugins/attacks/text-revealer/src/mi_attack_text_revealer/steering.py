"""Writing a text token by token while a classifier's gradients move the language model's state.

Dathathri et al., "Plug and Play Language Models", ICLR 2020 (PPLM), as Text Revealer uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_attack_text_revealer.prior import TextPrior
from mi_text.sampling import Sampling, choose
from mi_text.tokenizing import BEGIN_ID, END_ID, MASK_ID, PAD_ID
from mi_text.transformer import Cache
from micore.target import Target

NEVER = -1e9
"""Logit of what is never written; finite, so that a divergence of distributions stays a number."""
_TINY = 1e-10


@dataclass(frozen=True, kw_only=True)
class Steering:
    """How the state is moved, and how a token is drawn.

    iterations: steps of gradient for each token; step_size: length of each; normalisation: power of the gradient's
    norm that it is divided by; kl_weight: of the divergence from the unmoved distribution; fusion: weight of the moved
    distribution in the geometric mean.
    """

    iterations: int
    step_size: float
    normalisation: float
    kl_weight: float
    fusion: float
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class Written:
    """Rows of ids, int64 (N, max_tokens), padded; losses (N,): of the class for the last relaxed text of each."""

    ids: Tensor
    losses: Tensor


@dataclass
class Writer:
    """Writes up to ``tile`` texts at once; every pass has exactly so many rows, and ended texts only fill it up."""

    prior: TextPrior
    target: Target
    steering: Steering
    tile: int

    def write(self, labels: Tensor, uniform: Tensor, owners: Sequence[str]) -> Written:
        """Write a text of each of the classes (N,); uniform: numbers in [0, 1), (N, max_tokens).

        owners: ids of the cases that pay, (N,). Raises: BudgetExceeded.
        """
        network, n = self.prior.module.network, len(labels)
        found = torch.full((n, self.steering.sampling.max_tokens), PAD_ID, device=labels.device)
        losses = torch.zeros(n, device=labels.device)
        rows, cache = torch.arange(n, device=labels.device), None
        last = torch.full((n,), BEGIN_ID, device=labels.device)
        for step in range(found.shape[1]):
            filled = _filled(rows, self.tile)
            vector = network.embed(last[filled][:, None])
            with self.target.ledger.owned_by(
                [owners[row] for row in rows.tolist()], padding=self.tile - len(rows), rows=self.tile
            ):
                logits, kept, relaxed = self._moved(vector, cache, found[filled][:, :step], labels[filled])
            token = choose(logits, self.steering.sampling, step, uniform[filled, step])[: len(rows)]
            losses[rows] = relaxed[: len(rows)]
            going = token != END_ID
            found[rows, step] = torch.where(going, token, PAD_ID)
            last[rows] = token
            if not bool(going.any()):
                break
            cache = kept.picked(_filled(going.nonzero().flatten(), self.tile))
            rows = rows[going]
        return Written(ids=found, losses=losses)

    def _moved(
        self, vector: Tensor, cache: Cache | None, written: Tensor, labels: Tensor
    ) -> tuple[Tensor, Cache, Tensor]:
        """Return fused logits (B, V), the unmoved cache with this position, and the last relaxed losses (B,)."""
        steering = self.steering
        with torch.no_grad():
            plain, kept = self._logits(vector, cache)
        before = functional.one_hot(written, plain.shape[1]).float()
        past = [part for layer in (cache.layers if cache is not None else []) for part in layer]
        moves = [torch.zeros_like(part) for part in (vector, *past)]
        relaxed = torch.zeros(len(labels), device=labels.device)
        for _ in range(steering.iterations):
            moves = [move.detach().requires_grad_() for move in moves]
            logits, _ = self._logits(vector + moves[0], _shifted(cache, moves[1:]))
            losses = self._class_losses(before, logits, labels)
            divergence = (logits.softmax(1) * (logits.log_softmax(1) - plain.log_softmax(1))).sum(dim=1)
            gradients = torch.autograd.grad((losses + steering.kl_weight * divergence).sum(), moves)
            moves = [move.detach() - self._step(gradient) for move, gradient in zip(moves, gradients, strict=True)]
            relaxed = losses.detach()
        with torch.no_grad():
            moved, _ = self._logits(vector + moves[0], _shifted(cache, moves[1:]))
        fused = _fused(plain, moved, steering.fusion)
        return fused, kept, relaxed

    def _logits(self, vector: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        network = self.prior.module.network
        states, kept = network(vector, cache=cache)
        logits = network.logits(states[:, -1])
        never = torch.tensor([PAD_ID, BEGIN_ID, MASK_ID], device=logits.device)
        return logits.index_fill(1, never, NEVER), kept

    def _class_losses(self, before: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of what is written with a soft next token; the end is no token to be read."""
        ending = torch.tensor([END_ID], device=logits.device)
        soft = logits.index_fill(1, ending, NEVER).softmax(dim=1)[:, None]
        answers = self.target.module(torch.cat([before, soft], dim=1))
        return functional.cross_entropy(answers.float(), labels, reduction="none")

    def _step(self, gradient: Tensor) -> Tensor:
        norm = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        step: Tensor = self.steering.step_size * gradient / (norm**self.steering.normalisation + _TINY)
        return step


def _fused(plain: Tensor, moved: Tensor, weight: float) -> Tensor:
    """Return log-probabilities (N, V), up to a constant: the geometric mean of both among tokens.

    Whether the text ends here stays as the unmoved distribution has it, as the gradient knows nothing of ends.
    """
    ending = torch.tensor([END_ID], device=plain.device)
    tokens = [logits.index_fill(1, ending, NEVER).log_softmax(dim=1) for logits in (plain, moved)]
    mixed = ((1 - weight) * tokens[0] + weight * tokens[1]).log_softmax(dim=1)
    end = plain.log_softmax(dim=1)[:, END_ID]
    going_on = torch.log1p(-end.exp().clamp(max=1 - 1e-6))
    return (mixed + going_on[:, None]).index_copy(1, ending, end[:, None])


def _shifted(cache: Cache | None, moves: Sequence[Tensor]) -> Cache | None:
    """Return a cache with a move added to the keys and values of each layer, in their order."""
    if cache is None:
        return None
    pairs = zip(cache.layers, moves[::2], moves[1::2], strict=True)
    return Cache([(keys + key_move, values + value_move) for (keys, values), key_move, value_move in pairs])


def _filled(rows: Tensor, tile: int) -> Tensor:
    """Return rows, followed by the first one until there are ``tile``."""
    return torch.cat([rows, rows[:1].expand(tile - len(rows))])
