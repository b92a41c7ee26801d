"""What cosines to speakers say: own against others, who is nearest, and how well a threshold would tell them.

A *trial* is a sample against a speaker; its score is the cosine of the sample's voiceprint to the mean voiceprint of
the speaker's enrolled clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from micore.kit.statistics import percentile_interval

Floats = NDArray[np.float64]

MOST_THRESHOLDS = 1000
"""Tried behind an interval; the value itself tries every score."""
BLOCK = 200
"""Resamples at a time."""


def trial_scores(prints: Tensor, enrolled: Tensor, speakers: Tensor, same: Sequence[Sequence[int]]) -> Tensor:
    """Return the score of every trial, float64 (N, K).

    prints: (N, d); enrolled: (M, d), each of length 1, of the speakers (M,) from 0 to K - 1; same: for each sample the
    enrolled clips that it is itself: nothing is compared with itself. NaN: nothing else of that speaker is enrolled. A
    voiceprint that is not finite is as near to one speaker as to another, with score 0.
    """
    k = int(speakers.max()) + 1
    sums = enrolled.new_zeros(k, enrolled.shape[1]).index_add(0, speakers, enrolled)
    readable = prints.isfinite().all(dim=1, keepdim=True)
    sound = torch.where(readable, prints, torch.zeros_like(prints))
    scores = sound @ functional.normalize(sums, dim=1).T
    counts = torch.bincount(speakers, minlength=k)
    for row, clips in enumerate(same):
        for speaker in {int(speakers[clip]) for clip in clips}:
            left = [clip for clip in clips if int(speakers[clip]) == speaker]
            rest = functional.normalize(sums[speaker] - enrolled[left].sum(dim=0), dim=0)
            scores[row, speaker] = sound[row] @ rest if len(left) < int(counts[speaker]) else torch.nan
    return scores


def own_minus_others(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how much nearer each sample is to its own speaker than to the others on average, (N,)."""
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], torch.nan)
    return own - others.nanmean(dim=1)


def is_first(scores: Tensor, labels: Tensor) -> Tensor:
    """Return 1 where no other speaker is as near as the own one, (N,); NaN where the own one has no score."""
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], -torch.inf)
    first = (others.nan_to_num(-torch.inf).amax(dim=1, keepdim=True) < own).double()
    return first.masked_fill(own.isnan(), torch.nan)[:, 0]


def equal_error_rate(scores: Tensor, labels: Tensor) -> float:
    """Return the rate at which as many own trials are refused as others are accepted: 0.5 is chance."""
    _, refused, accepted = _curves(scores, labels, None)
    return float(_crossing(refused.sum(axis=0), accepted.sum(axis=0)))


def bootstrap_error_rate(scores: Tensor, labels: Tensor, seed: int, resamples: int) -> tuple[float, float] | None:
    """Return the bounds of the equal error rate by a bootstrap over the samples' classes; None with fewer than two."""
    classes, refused, accepted = _curves(scores, labels, MOST_THRESHOLDS)
    if classes < 2:
        return None
    generator, found = np.random.default_rng(seed), []
    for start in range(0, resamples, BLOCK):
        drawn = generator.multinomial(classes, np.full(classes, 1 / classes), min(BLOCK, resamples - start))
        found.append(_crossing(drawn @ refused, drawn @ accepted))
    return percentile_interval(np.concatenate(found))


def _curves(scores: Tensor, labels: Tensor, most: int | None) -> tuple[int, Floats, Floats]:
    """Return the number of classes, and by class how many own trials lie below and others not below each threshold."""
    places = scores.isfinite().nonzero()
    values = scores[places[:, 0], places[:, 1]].numpy()
    mine = (labels[places[:, 0]] == places[:, 1]).numpy()
    classes, cluster = np.unique(labels[places[:, 0]].numpy(), return_inverse=True)
    # one lies above all: everything refused
    thresholds = np.append(np.unique(values), np.inf)
    if most is not None and len(thresholds) > most:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, most).round().astype(int)]
    refused = np.zeros((len(classes), len(thresholds)))
    accepted = np.zeros_like(refused)
    for index in range(len(classes)):
        own, others = (np.sort(values[(cluster == index) & part]) for part in (mine, ~mine))
        refused[index] = np.searchsorted(own, thresholds, side="left")
        accepted[index] = len(others) - np.searchsorted(others, thresholds, side="left")
    return len(classes), refused, accepted


def _crossing(refused: Floats, accepted: Floats) -> Floats:
    """Return where the rates are nearest to each other, their mean, (...,); counts (..., thresholds)."""
    missed = refused / np.maximum(1, refused[..., -1:])
    passed = accepted / np.maximum(1, accepted[..., :1])
    nearest = np.abs(missed - passed).argmin(axis=-1)[..., None]
    both = np.take_along_axis(missed, nearest, -1) + np.take_along_axis(passed, nearest, -1)
    return np.asarray(both[..., 0] / 2)
