"""Exposure of a planted secret: how far its likelihood stands out among other secrets of its kind, in bits.

Source: Carlini et al., The Secret Sharer (USENIX Security 2019). With R the space of secrets and rank 1 the most
likely, exposure = log2 |R| - log2 rank, which is -log2 of the chance that a random secret is at least as likely. Both
estimates know m secrets of R only: one by the rank among these, one by a skew-normal distribution fitted to the others.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.stats import FitError, rankdata, skewnorm  # type: ignore[import-untyped]

Floats = NDArray[np.float64]

LEAST_OTHERS = 30
"""Fewer log-likelihoods tell nothing of the tail of their distribution."""


def rank(own: float, others: Floats) -> int:
    """Return the rank of a secret among others (N,), from 1; all that are not less likely count against it.

    So do equal log-likelihoods, and those that are no numbers: an attack gains nothing by spoiling them.
    """
    return 1 + int((~(others < own)).sum())


def interpolated(own: float, others: Floats) -> float:
    """Return log2 m - log2 rank in [0, log2 m], of m = N + 1 log-likelihoods: ``own`` and ``others`` (N,)."""
    return math.log2(len(others) + 1) - math.log2(rank(own, others))


def extrapolated(own: float, others: Floats, most: float) -> float:
    """Return -log2 of the chance of a likelihood as high as ``own`` under a skew-normal fit to the others (N,).

    own, others: log-likelihoods in nats. The value lies in [0, most], where ``most`` is log2 of the space of secrets:
    no secret can stand out further. NaN where there are too few others, or they do not differ.
    """
    sound = others[np.isfinite(others)]
    if len(sound) < LEAST_OTHERS or np.ptp(sound) == 0:
        return math.nan
    if not math.isfinite(own):
        return most if own > 0 else 0.0
    centre, spread = sound.mean(), sound.std()
    # As in the source, of log-perplexities, whose lower tail is asked for; in units of their spread for the optimiser.
    log_chance = _log_tail((centre - own) / spread, (centre - sound) / spread)
    return float(np.clip(-log_chance / math.log(2), 0.0, most))


def _log_tail(value: float, sample: Floats) -> float:
    """Return the log of the chance of at most ``value``, by a fit to the sample; -inf if it is too small for floats."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of steps of the optimiser outside of the parameters' range
        try:
            shape, place, scale = skewnorm.fit(sample)
        except FitError:
            return math.nan
        return float(skewnorm.logcdf(value, shape, place, scale))


def expected_by_chance(m: int) -> float:
    """Return the mean of the interpolated exposure when every rank among m is as likely: near 1.44 bits."""
    return math.log2(m) - math.lgamma(m + 1) / math.log(2) / m


def rank_correlation(one: Floats, two: Floats) -> Floats:
    """Return Spearman's correlation of the last axes (..., N), in [-1, 1]; NaN where either does not vary."""
    one, two = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (_ranks(one), _ranks(two)))
    spread = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    correlation: Floats = np.divide(
        (one * two).sum(axis=-1), spread, out=np.full_like(spread, np.nan), where=spread > 0
    )
    return correlation


def _ranks(values: Floats) -> Floats:
    ranks: Floats = rankdata(values, axis=-1)
    return ranks
