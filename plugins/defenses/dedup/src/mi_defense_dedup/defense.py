"""Deduplication of a training corpus.

Lee, Ippolito, Nystrom, Zhang, Eck, Callison-Burch, Carlini: "Deduplicating Training Data Makes Language Models Better",
ACL 2022 (arXiv:2107.06499); that language models give away what stands in their corpus often, far more than in
proportion: Kandpal, Wallace, Raffel, ICML 2022 (arXiv:2202.06539).

Threat model: an adversary of any access who wants the texts that a model remembers. What stands in the corpus once is
not protected, and is still seen in every epoch.

Fidelity notes (paper / here)
- NearDup: the paper's MinHash of word 5-grams with 9,000 hashes, then edit similarity above 0.8, then connected
  components of which one text is kept. Here 128 hashes find candidates and the exact Jaccard similarity of the 5-grams
  decides; groups are connected components too, and the first text of each is kept.
- ExactSubstr, which cuts repeated runs of 50 tokens out of texts, is not done: whole texts are removed.
- Equal but for case and spaces counts as equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field

from mi_defense_dedup.minhash import groups, shingles
from mi_text.splits import TextSplit, as_texts
from micore.contracts import Config, Defense, Split


class DeduplicationConfig(Config):
    """Settings of the defense."""

    threshold: float | None = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of word n-grams from which on texts are near; null: only "
        "equal texts are removed; paper: 0.8",
    )  # fmt: skip
    words: int = Field(5, ge=1, le=50, description="words of an n-gram; paper: 5")


class Deduplication(Defense):
    """Keep the first text of each group of equal or near ones."""

    Config: ClassVar[type[Config]] = DeduplicationConfig
    config: DeduplicationConfig

    def __init__(self, config: DeduplicationConfig) -> None:
        super().__init__(config)
        self._facts: dict[str, Any] = {}

    def adapt_data(self, split: Split) -> TextSplit:
        """Return the texts that are kept, in their order, with labels and facts; labels do not tell texts apart."""
        texts = as_texts(split)
        different = first_of_equal(texts.texts)
        kept = different
        if self.config.threshold is not None:
            sets = [shingles(texts.texts[row], self.config.words) for row in different]
            first = groups(sets, self.config.threshold)
            kept = [row for place, row in enumerate(different) if first[place] == place]
        self._facts = {
            "texts": len(texts), "kept": len(kept), "equal_removed": len(texts) - len(different),
            "near_removed": len(different) - len(kept),
        }  # fmt: skip
        return _rows(texts, kept)

    def facts(self) -> Mapping[str, Any]:
        """Return how many texts there were and how many were removed; nothing before a training."""
        return self._facts


def first_of_equal(texts: tuple[str, ...]) -> list[int]:
    """Return the rows of the first of each text, but for case and spaces."""
    rows: dict[str, int] = {}
    for row, text in enumerate(texts):
        rows.setdefault(" ".join(text.lower().split()), row)
    return list(rows.values())


def _rows(texts: TextSplit, rows: list[int]) -> TextSplit:
    labels = None if texts.labels is None else texts.labels[torch.tensor(rows, dtype=torch.int64)]
    facts = tuple(texts.facts[row] for row in rows) if texts.facts else ()
    return TextSplit(tuple(texts.take(rows)), labels, facts)
