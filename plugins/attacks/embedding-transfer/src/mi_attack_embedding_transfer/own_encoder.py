"""The adversary's own encoder: hashed words and pairs of words, weighted by rarity, projected at random.

It takes no training and no download, so that the decoder of its embeddings needs no target and no foreign model.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_text.measures import words
from micore.runtime import Random


@dataclass(frozen=True, kw_only=True)
class OwnEncoder:
    """Embeds texts on the CPU.

    rarity: the weight of each bucket, its inverse document frequency, (buckets,). directions: (buckets, width).
    pair_weight: of pairs of neighbouring words, beside single words; 0: order leaves no trace.
    """

    rarity: Tensor
    directions: Tensor
    pair_weight: float

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings of unit length, float32 (N, width); zeros for a text without words.

        A text's embedding does not depend on the others.
        """
        places, weights, starts = list[int](), list[float](), list[int]()
        for text in texts:
            starts.append(len(places))
            for (place, weight), count in Counter(_features(text, len(self.rarity), self.pair_weight)).items():
                places.append(place)
                weights.append(weight * (1 + math.log(count)))
        at = torch.tensor(places, dtype=torch.int64)
        found = functional.embedding_bag(
            at, self.directions, torch.tensor(starts, dtype=torch.int64), mode="sum",
            per_sample_weights=torch.tensor(weights, dtype=torch.float32) * self.rarity[at],
        )  # fmt: skip
        return functional.normalize(found, dim=1)


def fit_encoder(texts: Sequence[str], width: int, buckets: int, pair_weight: float, seed: int) -> dict[str, Any]:
    """Count in how many texts each bucket stands; return the encoder as plain data, for `restore_encoder`."""
    standing = Counter(place for text in texts for place in {at for at, _ in _features(text, buckets, pair_weight)})
    counts = torch.zeros(buckets)
    for place, count in standing.items():
        counts[place] = count
    rarity = ((1 + len(texts)) / (1 + counts)).log() + 1
    return {"rarity": rarity, "width": width, "pair_weight": pair_weight, "seed": seed}


def restore_encoder(state: Mapping[str, Any]) -> OwnEncoder:
    """Build what `fit_encoder` made; the directions are drawn again."""
    rarity, width = state["rarity"].cpu(), int(state["width"])
    directions = Random(int(state["seed"])).normal((len(rarity), width)) / math.sqrt(width)
    return OwnEncoder(rarity=rarity, directions=directions, pair_weight=float(state["pair_weight"]))


def _features(text: str, buckets: int, pair_weight: float) -> list[tuple[int, float]]:
    """Return bucket and weight of each word and pair of words."""
    found = words(text)
    single = [(_bucket(word, buckets), 1.0) for word in found]
    if not pair_weight:
        return single
    return single + [(_bucket(" ".join(pair), buckets), pair_weight) for pair in pairwise(found)]


def _bucket(feature: str, buckets: int) -> int:
    return zlib.crc32(feature.encode()) % buckets  # `hash` differs from process to process
