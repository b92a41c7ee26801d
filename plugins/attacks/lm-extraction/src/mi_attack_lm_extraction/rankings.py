"""What tells a training text from other texts that a language model writes (Carlini et al., 2021, section 5.2).

Every ranking is larger for texts that look more like training texts. Log perplexities are mean negative log-likelihoods
of a text's tokens, in nats, without the end of the text: a sample that was cut off has none. Ratios have them of the
target below, so that what the target is sure of for no other reason stands in front; they are kept away from 0, where
every ratio explodes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mi_text.reference_model import LanguageModel

RANKINGS = ("perplexity", "zlib", "lowercase", "window", "small", "medium")
"""The order of the rankings, as in `Reconstruction.latents`; ``medium`` only where there is such a reference."""

LEAST = 1e-3
"""Smallest log perplexity that a ratio divides by, in nats."""


def rankings_of(
    texts: Sequence[str], target: LanguageModel, references: Sequence[LanguageModel], window: int
) -> Tensor:
    """Return all rankings of texts, float32 (N, 4 + references); the target is asked twice about each text."""
    own = [_tokens(values) for values in target.likelihoods(texts)]
    lowered = log_perplexities([_tokens(values) for values in target.likelihoods([text.lower() for text in texts])])
    mean = log_perplexities(own)
    columns = [
        -mean,
        zlib_lengths(texts) / mean.clamp(min=LEAST),
        lowered / mean.clamp(min=LEAST),
        -least_window(own, window),
        *(_ratios(texts, own, reference) for reference in references),
    ]
    return torch.stack(columns, dim=1).float()


def _tokens(values: Tensor) -> Tensor:
    """Return the log-likelihoods of a text's tokens without its end's; an empty text has the end alone."""
    return (values[:-1] if len(values) > 1 else values).double()


def log_perplexities(values: Sequence[Tensor]) -> Tensor:
    """Return the mean negative log-likelihood of each text, (N,) in nats."""
    return torch.stack([-row.mean() for row in values])


def zlib_lengths(texts: Sequence[str]) -> Tensor:
    """Return the bytes of each text after compression by zlib, float64 (N,): how much it says at all."""
    return torch.tensor([len(zlib.compress(text.encode("utf-8"))) for text in texts], dtype=torch.float64)


def least_window(values: Sequence[Tensor], window: int) -> Tensor:
    """Return the smallest mean negative log-likelihood of any so many tokens in a row, (N,) in nats.

    A shorter text is one window.
    """
    return torch.stack([-row.unfold(0, min(window, len(row)), 1).mean(dim=1).max() for row in values])


def _ratios(texts: Sequence[str], own: Sequence[Tensor], reference: LanguageModel) -> Tensor:
    """Return the log-likelihoods by a reference over those by the target, of whole texts: their tokens may differ."""
    others = torch.stack([-_tokens(values).sum() for values in reference.likelihoods(texts)])
    least = torch.tensor([LEAST * len(row) for row in own], dtype=torch.float64)
    return others / torch.stack([-row.sum() for row in own]).maximum(least)
