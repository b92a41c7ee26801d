"""Does the adversary's data hold the private data? Equal clips, and clips that sound the same.

Clips are near when their long-term spectrum and the course of their loudness, both without their means, point almost
the same way: the same recording at another loudness, or cut at a slightly other place.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.cases import audio_split
from mi_audio.spectra import stft
from mi_audio.splits import FULL_SCALE, AudioSplit
from micore.contracts import Dataset
from micore.errors import DataError

NEAR = 0.985
"""Cosine from which on clips count as near."""
N_EXAMPLES = 10
PATCH = (16, 32)
"""Bands and times of a fingerprint."""
BATCH = 512


def measure_overlap(dataset: Dataset) -> dict[str, Any]:
    """Count the public and holdout clips that equal a private one or sound like it.

    Returns, for ``public`` and ``holdout`` (where the data set has them): ``n``, ``equal`` (same samples), ``near`` and
    ``examples``, up to ten ``{index, private_index}``.
    """
    private = audio_split(dataset, "private")
    digests = {digest: row for row, digest in reversed(list(enumerate(_digests(private))))}
    prints = _prints(private)
    found: dict[str, Any] = {"near_from": NEAR, "private": {"n": len(private)}}
    for name in ("public", "holdout"):
        try:
            split = audio_split(dataset, name)
        except DataError:
            continue
        found[name] = _compared(split, digests, prints)
    return found


def _compared(split: AudioSplit, digests: dict[bytes, int], prints: Tensor) -> dict[str, Any]:
    equal = {row: digests[digest] for row, digest in enumerate(_digests(split)) if digest in digests}
    cosine, nearest = (_prints(split) @ prints.T).max(dim=1)
    near = {row: int(nearest[row]) for row in (cosine >= NEAR).nonzero().flatten().tolist() if row not in equal}
    pairs = [*equal.items(), *near.items()][:N_EXAMPLES]
    examples = [{"index": row, "private_index": match} for row, match in pairs]
    return {"n": len(split), "equal": len(equal), "near": len(near), "examples": examples}


def _digests(split: AudioSplit) -> list[bytes]:
    return [hashlib.blake2b(clip.tobytes(), digest_size=16).digest() for clip in split.clips.numpy()]


def _prints(split: AudioSplit) -> Tensor:
    """Return a vector of length 1 for each clip, (N, bands x times); 0 for silence."""
    found = []
    for clips in split.clips.split(BATCH):
        power = stft(clips.float() / FULL_SCALE).abs().square()
        levels = (functional.adaptive_avg_pool2d(power[:, None], PATCH)[:, 0] + 1e-6).log()
        centred = levels.flatten(1) - levels.mean(dim=(1, 2))[:, None]
        found.append(functional.normalize(centred, dim=1))
    return torch.cat(found)
