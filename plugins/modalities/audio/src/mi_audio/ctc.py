"""Connectionist temporal classification (Graves et al., ICML 2006): likelihoods of transcripts, and the likeliest ones.

The likelihoods are written out in operations that every device has, that are deterministic, and that `torch.func` can
differentiate for single samples: torch's own loss has a backward pass on GPUs that is not deterministic.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor
from torch.nn import functional

NEVER = -1e30
"""The log-likelihood of what cannot be; finite, so that its gradients are."""

POSSIBLE = -1e20
"""Below lies what cannot be: a transcript that needs more frames than there are."""


def log_likelihoods(frames: Tensor, letters: Tensor) -> Tensor:
    """Return the log-likelihood of transcripts, (...,), in nats: the sum over all ways to write them (equations 5-8).

    frames: log-probabilities (..., T, K), of which number 0 is the blank; letters: int64 (..., S), padded with 0.
    """
    blanks = torch.zeros_like(letters)
    states = functional.pad(torch.stack([blanks, letters], dim=-1).flatten(-2), (0, 1))
    shape = (*states.shape[:-1], frames.shape[-2], states.shape[-1])
    emitted = frames.gather(-1, states[..., None, :].expand(shape))
    before = functional.pad(states, (2, 0))[..., :-2]
    may_skip = (states != 0) & (states != before)
    never = torch.full_like(emitted[..., 0, :], NEVER)
    forward = torch.cat([emitted[..., 0, :2], never[..., 2:]], dim=-1)
    for place in range(1, frames.shape[-2]):
        one = functional.pad(forward, (1, 0), value=NEVER)[..., :-1]
        two = torch.where(may_skip, functional.pad(forward, (2, 0), value=NEVER)[..., :-2], never)
        forward = torch.stack([forward, one, two]).logsumexp(dim=0) + emitted[..., place, :]
    last = 2 * (letters != 0).sum(dim=-1, keepdim=True)
    end = forward.gather(-1, last)
    inner = torch.where(last > 0, forward.gather(-1, (last - 1).clamp(min=0)), torch.full_like(end, NEVER))
    return torch.logaddexp(end, inner)[..., 0]


def greedy(frames: Tensor) -> list[list[int]]:
    """Return the letters of the likeliest way of each row, from log-probabilities (N, T, K)."""
    return [_collapsed(row) for row in frames.argmax(dim=2).tolist()]


def _collapsed(path: list[int]) -> list[int]:
    return [letter for before, letter in zip([0, *path[:-1]], path, strict=True) if letter and letter != before]


def beam_search(frames: Tensor, width: int) -> list[list[int]]:
    """Return the likeliest letters of each row that a search of prefixes finds, from log-probabilities (N, T, K).

    Source: Hannun et al., arXiv:1408.2873, algorithm 1, without a language model. width: prefixes kept at each frame.
    """
    return [_likeliest(row, width) for row in frames.double().tolist()]


def _likeliest(frames: list[list[float]], width: int) -> list[int]:
    # for each prefix: log-likelihoods of the ways that end with a blank, and of those that end with its last letter
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in frames:
        found: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (blank, letter) in beam.items():
            both = _sum(blank, letter)
            stay = found[prefix]
            stay[0] = _sum(stay[0], both + frame[0])
            for number in range(1, len(frame)):
                again = bool(prefix) and prefix[-1] == number
                if again:
                    stay[1] = _sum(stay[1], letter + frame[number])
                longer = found[(*prefix, number)]
                longer[1] = _sum(longer[1], (blank if again else both) + frame[number])
        best = sorted(found.items(), key=lambda item: (-_sum(*item[1]), item[0]))[:width]
        beam = {prefix: (values[0], values[1]) for prefix, values in best}
    return list(next(iter(beam)))


def _sum(one: float, two: float) -> float:
    """Return log(exp(one) + exp(two))."""
    high, low = (one, two) if one >= two else (two, one)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
