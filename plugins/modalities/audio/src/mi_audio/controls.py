"""What judges of speakers accept without any inversion: the controls of goal ``class``.

A judge of speakers hears a recording's colour besides the voice. `ORACLE` tells how far colour alone carries: noise of
which only the long-term spectrum is the speaker's, which no adversary has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mi_audio.cases import audio_split
from mi_audio.spectra import long_term, shaped_noise
from mi_audio.splits import AudioSplit
from micore.contracts import Case, Dataset, Reconstruction
from micore.errors import DataError
from micore.runtime import Random, derive_seed

NOISE, OTHERS, MEAN, ORACLE = "noise", "random-public", "mean-spectrum", "oracle-spectrum"
MOST = 200
"""Clips that a long-term spectrum is averaged over."""


def class_controls(reconstructions: Sequence[Reconstruction], dataset: Dataset) -> dict[str, list[Reconstruction]]:
    """Return as many clips for each case as the attack gave.

    ``noise``: white; ``random-public``: speech of other people; ``mean-spectrum``: noise with their mean long-term
    spectrum; ``oracle-spectrum``: noise with the long-term spectrum of the case's own private clips.
    """
    private = audio_split(dataset, "private")
    length = private.clips.shape[1]

    def noise(case: Case, n: int, rng: Random) -> Tensor:
        return (0.1 * rng.normal((n, length))).clamp(-1, 1)

    def oracle(case: Case, n: int, rng: Random) -> Tensor:
        return shaped_noise(_spectrum(private.of(case.label)).expand(n, -1), length, rng)

    known = [item for item in reconstructions if len(private.of(item.case.label))]
    found = {NOISE: _each(reconstructions, NOISE, noise), ORACLE: _each(known, ORACLE, oracle)}
    return found | _public_controls(reconstructions, dataset, length)


def _public_controls(
    reconstructions: Sequence[Reconstruction], dataset: Dataset, length: int
) -> dict[str, list[Reconstruction]]:
    try:
        public = audio_split(dataset, "public")
    except DataError:
        return {}
    spectrum = _spectrum(public)
    return {
        OTHERS: _each(reconstructions, OTHERS, lambda case, n, rng: public.take(rng.integers(len(public), (n,)).cpu())),
        MEAN: _each(reconstructions, MEAN, lambda case, n, rng: shaped_noise(spectrum.expand(n, -1), length, rng)),
    }


def _each(
    reconstructions: Sequence[Reconstruction], name: str, make: Callable[[Case, int, Random], Tensor]
) -> list[Reconstruction]:
    found = []
    for item in reconstructions:
        n = len(item.scores)
        samples = make(item.case, n, Random(derive_seed(name, item.case.id)))
        found.append(Reconstruction(case=item.case, samples=samples, scores=torch.zeros(n)))
    return found


def _spectrum(split: AudioSplit) -> Tensor:
    """Return the mean long-term spectrum of some clips, (1, bins)."""
    rows = torch.linspace(0, len(split) - 1, min(MOST, len(split))).long()
    return long_term(split.take(rows)).square().mean(dim=0, keepdim=True).sqrt()
