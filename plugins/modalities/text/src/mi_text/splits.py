"""Parts of text data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from micore.contracts import Split
from micore.files import digest
from micore.kit.training import PartOf

Facts = Mapping[str, str]
"""What a text says of somebody: kind of slot (``name``, ``email``, ...) to the value as it stands in the text."""


@dataclass(frozen=True)
class TextSplit:
    """Part of a data set (`micore.contracts.Split`).

    texts: its samples, none of them empty. labels: int64 (N,), or None. facts: for each text what it says of somebody,
    empty when nobody noted it; only judges and those who own the data read them.

    Raises: ValueError when labels or facts do not fit the texts, or a text is empty.
    """

    texts: tuple[str, ...]
    labels: Tensor | None = None
    facts: tuple[Facts, ...] = ()

    def __post_init__(self) -> None:
        if not all(text.strip() for text in self.texts):
            raise ValueError("a text is empty")
        if self.labels is not None and (self.labels.dtype, tuple(self.labels.shape)) != (
            torch.int64,
            (len(self.texts),),
        ):
            raise ValueError(f"labels must be int64 ({len(self.texts)},), not {tuple(self.labels.shape)}")
        if self.facts and len(self.facts) != len(self.texts):
            raise ValueError(f"{len(self.facts)} facts for {len(self.texts)} texts")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | Tensor) -> list[str]:
        """Return these texts."""
        rows = indices.tolist() if isinstance(indices, Tensor) else indices
        return [self.texts[row] for row in rows]

    def facts_of(self, row: int) -> Facts:
        """Return what is known of a text's slots, nothing when nobody noted it."""
        return self.facts[row] if self.facts else {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of texts, labels and facts, 64 hex digits."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return digest(list(self.texts), labels, [sorted(item.items()) for item in self.facts])


def as_texts(split: Split) -> TextSplit:
    """Return a split of texts as such: a part of one, which a training that validates learns from, with its facts."""
    if isinstance(split, TextSplit):
        return split
    if not isinstance(split, PartOf):
        return TextSplit(tuple(split.take(range(len(split)))), split.labels)
    whole, rows = as_texts(split.whole), split.rows.tolist()
    facts = tuple(whole.facts_of(row) for row in rows) if whole.facts else ()
    return TextSplit(tuple(whole.take(rows)), split.labels, facts)
