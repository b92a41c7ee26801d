"""How far sounds are from each other: log-spectral distances that need no alignment, and colours."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mi_audio.adapter import RATE
from mi_audio.features import LogMel
from mi_audio.spectra import long_term

DECIBELS = 10 / math.log(10)
FRAMES = 50
"""Of a clip at most, evenly spread: the distance of two clips compares all pairs of them."""
PAIRS = 1 << 24
"""Pairs of frames at a time."""
LEAST = 1e-6


def frames_of(waveforms: Tensor, mel: LogMel) -> Tensor:
    """Return log-mel frames (N, frames, mels) in decibels, each clip's mean taken away: loudness does not count."""
    levels = DECIBELS * mel(waveforms).transpose(1, 2)
    places = torch.linspace(0, levels.shape[1] - 1, min(FRAMES, levels.shape[1])).long()
    return levels[:, places.to(levels.device)] - levels.mean(dim=(1, 2), keepdim=True)


def spectral_distances(frames: Tensor, others: Tensor) -> Tensor:
    """Return the distance in decibels of every pair of clips, (N, M), from their frames (N, T, mels) and (M, T', mels).

    Each frame is compared with the nearest one of the other clip, both ways, whatever their order: the root of the mean
    square over bands, then the mean over frames.
    """
    (n, t, bands), (m, u) = frames.shape, others.shape[:2]
    found = []
    for part in frames.split(max(1, PAIRS // (t * m * u))):
        pairs = torch.cdist(part.flatten(0, 1), others.flatten(0, 1)).view(len(part), t, m, u)
        there, back = pairs.amin(dim=3).mean(dim=1), pairs.amin(dim=1).mean(dim=2)
        found.append((there + back) / (2 * math.sqrt(bands)))
    return torch.cat(found) if n else frames.new_zeros(0, m)


def colours(waveforms: Tensor) -> Tensor:
    """Return smoothed long-term spectra (N, bins) in decibels, without their means."""
    levels = 20 * long_term(waveforms).clamp(min=LEAST).log10()
    return levels - levels.mean(dim=1, keepdim=True)


def colour_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the effective difference of colours (N, bins) in decibels, (N,)."""
    return (one - other).square().mean(dim=1).sqrt()


def spectrogram(device: torch.device) -> LogMel:
    """Return the spectrogram that distances are measured in."""
    return LogMel(RATE).to(device)


def nearest_of_label(frames: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
    """Return the distance of each clip to the nearest other one of its label, (N,); NaN where there is none."""
    found = frames.new_full((len(frames),), torch.nan)
    for label in labels.unique().tolist():
        mine, theirs = labels == label, others[other_labels == label]
        if len(theirs):
            found[mine] = spectral_distances(frames[mine], theirs).amin(dim=1)
    return found
