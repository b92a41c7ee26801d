"""Anonymisation of voiceprints: a secret rotation, or the mean of voiceprints of other people."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from micore.runtime import Random, derive_seed


def rotation(key: int, width: int) -> Tensor:
    """Return the orthogonal matrix (width, width) of a key, float32, on the CPU: uniform over all (Mezzadri, 2007)."""
    drawn = Random(derive_seed("speaker-anonymise", "rotation", key)).normal((width, width)).double().cpu()
    found, triangle = torch.linalg.qr(drawn)
    return (found * triangle.diagonal().sign()).float()


def replaced(prints: Tensor, pool: Tensor, lots: Tensor, farthest: int, chosen: int) -> Tensor:
    """Return, for each voiceprint (N, d), the mean of some of the farthest ones in a pool (P, d), as long as it was.

    lots (N, farthest): of the farthest by cosine those with the ``chosen`` highest lots are taken. Baseline B1 of the
    VoicePrivacy challenge: 100 at random of the 200 farthest.
    """
    cosines = functional.normalize(prints.float(), dim=1) @ functional.normalize(pool.float(), dim=1).T
    far = cosines.topk(farthest, dim=1, largest=False, sorted=True).indices
    drawn = far.gather(1, lots.topk(chosen, dim=1).indices)
    means = functional.normalize(pool[drawn].mean(dim=1), dim=1)
    return (means * vector_norm(prints.float(), dim=1, keepdim=True)).to(prints.dtype)


def speaker_means(prints: Tensor, speakers: Tensor) -> Tensor:
    """Return the mean voiceprint (K, d) of each speaker in (N,), of length 1."""
    _, places = speakers.unique(return_inverse=True)
    sums = prints.new_zeros(int(places.max()) + 1, prints.shape[1]).index_add(0, places, prints)
    return functional.normalize(sums, dim=1)


def linked(prints: Tensor, speakers: Tensor) -> float:
    """Return the share of clips whose nearest other clip by cosine is of the same speaker: what linking can do."""
    unit = functional.normalize(prints.double(), dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
    return float((speakers[nearest] == speakers).double().mean())
