"""The one data-set class that all openers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch

from mi_text.splits import TextSplit
from mi_text.tokenizing import text_input, train_tokenizer
from micore.errors import DataError
from micore.files import digest
from micore.inputs import InputSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class TextDataset:
    """Private, holdout and public texts of one setting (`micore.contracts.Dataset`).

    private, holdout: labelled with `classes`. public: without labels, as the adversary has it.
    others: texts of further classes, labelled from 0 in the order of `other_classes`, so that an evaluator can say
    "reads like sport". vocabulary, max_tokens: of the tokenizer that is made for the data, and how much of a text a
    model reads.

    Raises: DataError when a split is empty; ValueError when private, holdout or others have no labels.
    """

    modality: ClassVar[str] = "text"

    name: str
    classes: tuple[str, ...]
    private: TextSplit
    holdout: TextSplit | None
    public: TextSplit | None
    vocabulary: int
    max_tokens: int
    others: TextSplit | None = None
    other_classes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, part in self._splits.items():
            if len(part) == 0:
                raise DataError(f"{self.name}: no {name} texts")
        for labelled in (self.private, self.holdout, self.others):
            if labelled is not None and labelled.labels is None:
                raise ValueError("private, holdout and other texts need labels")

    @cached_property
    def input(self) -> InputSpec:
        """What a model trained on it takes: tokens of a tokenizer made from private and public texts.

        Repeated texts count once, so that the vocabulary does not give away what stands there often.
        """
        texts = {*self.private.texts, *(self.public.texts if self.public else ())}
        return text_input(train_tokenizer(sorted(texts), self.vocabulary), self.max_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""
        parts = {name: split.fingerprint for name, split in self._splits.items()}
        return digest(self.modality, list(self.classes), parts)

    @cached_property
    def _splits(self) -> dict[str, TextSplit]:
        parts = {"private": self.private, "holdout": self.holdout, "public": self.public}
        return {name: part for name, part in parts.items() if part is not None}

    def split(self, name: str) -> TextSplit:
        """Return ``private``, ``holdout`` or ``public``.

        Raises: DataError when the data set has none of this name.
        """
        if name not in self._splits:
            raise DataError(f"{self.name} has no split {name!r}", hint="it has " + ", ".join(self._splits))
        return self._splits[name]

    def judging(self) -> tuple[TextSplit, tuple[str, ...]]:
        """Return what evaluator models learn: private texts, then the others under further labels."""
        if self.others is None or self.others.labels is None or self.private.labels is None:
            return self.private, self.classes
        labels = torch.cat([self.private.labels, self.others.labels + len(self.classes)])
        return TextSplit(self.private.texts + self.others.texts, labels), self.classes + self.other_classes
