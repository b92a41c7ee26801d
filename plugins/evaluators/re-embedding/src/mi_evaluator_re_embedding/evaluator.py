"""Cosine of the recovered text with the very text that a case is about, both embedded by an independent encoder.

An attack on an encoder climbs the cosine of that encoder: only another one can judge it. Two can be had:

- by default words and pairs of neighbouring words, weighted by how rare they are in held-out and public texts (TF-IDF;
  Salton and Buckley, 1988): what a sentence of the right form about somebody else shares with the truth weighs little.
- ``encoder``: a bundle of an encoder of the user's, such as ``mi import`` and ``mi train`` write.

Only the first sample of each case counts: an adversary without the truth cannot pick a better one among the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_re_embedding.rare_words import RareWords
from mi_text.asking import BATCH, parts
from mi_text.measures import best
from micore.artifacts import Bundle
from micore.contracts import Config, Measurement, Reconstruction, Reference, Subject
from micore.errors import DataError, ModelError
from micore.kit.measuring import Figure, Rows, measure
from micore.models import restore_network
from micore.registry import Registry
from micore.runtime import Runtime

Cosines = Callable[[Sequence[str], Sequence[str]], Tensor]
"""Texts and others, pair by pair, to their cosines (N,)."""


class ReembeddingConfig(Config):
    """Settings of the evaluator."""

    encoder: Path | None = Field(None, description="bundle of an encoder that was not attacked; none: rare words")
    texts: int = Field(20_000, ge=1, description="public texts in which rarity is counted, besides the held-out ones")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


class ReembeddingEvaluator:
    """Judge recovered texts by the cosine of an encoder that the attack never asked."""

    Config: ClassVar[type[Config]] = ReembeddingConfig

    def __init__(self, config: ReembeddingConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike, over the cases that have a truth; nothing where none has.

        Raises: ModelError when the encoder is the target itself, or no encoder of texts.
        """
        known = {
            subject.name: [item for item in subject.reconstructions if item.case.id in reference.truth]
            for subject in subjects
        }
        if not any(known.values()):
            return []
        identity, cosines = self._judge(reference, runtime)
        return [self._measure(name, items, reference, identity, cosines) for name, items in known.items() if items]

    def _judge(self, reference: Reference, runtime: Runtime) -> tuple[str, Cosines]:
        if self.config.encoder is None:
            return "rare-words", RareWords(domain_texts(reference, self.config.texts)).cosines
        bundle = Bundle.load(self.config.encoder)
        return bundle.fingerprint[:8], encoder_cosines(bundle, reference, runtime)

    def _measure(
        self, name: str, items: Sequence[Reconstruction], reference: Reference, identity: str, cosines: Cosines
    ) -> Measurement:
        guesses = [best(item.samples) for item in items]
        truth = [str(reference.truth[item.case.id].sample[0]) for item in items]
        alone = [replace(item, samples=[guess]) for item, guess in zip(items, guesses, strict=True)]
        rows = Rows.of(Subject(name=name, reconstructions=alone), labelled=False)
        figure = Figure("re-embedding-cosine", cosines(guesses, truth), "cosine", "up")
        return measure(figure, rows, f"re-embedding@{identity}", resamples=self.config.resamples)


def domain_texts(reference: Reference, limit: int) -> list[str]:
    """Return texts of the domain that are not the private ones: held-out ones, and so many public ones."""
    found: list[str] = []
    for name in ("holdout", "public"):
        try:
            split = reference.dataset.split(name)
        except DataError:
            continue
        found += split.take(range(min(len(split), limit)))
    return found


def encoder_cosines(bundle: Bundle, reference: Reference, runtime: Runtime) -> Cosines:
    """Return the cosines of an encoder's embeddings, 0 for an empty text.

    Raises: ModelError when it is the target itself, or no encoder of texts.
    """
    if bundle.card.modality != "text" or bundle.card.role != "encoder":
        raise ModelError(
            f"{bundle.source} is a {bundle.card.role} of {bundle.card.modality}, and re-embedding needs an encoder",
            hint="train one, or import one of `hf:`",
        )
    if reference.target is not None and reference.target.fingerprint == bundle.fingerprint:
        raise ModelError(
            f"{bundle.source} is the target itself: it would grade its own attack", hint="give another encoder"
        )
    module, _ = restore_network(Registry.discover(), bundle)
    runtime.place(module.eval().requires_grad_(False))
    adapter = reference.modality.adapter(bundle.card.input)

    @torch.no_grad()
    def cosines(texts: Sequence[str], others: Sequence[str]) -> Tensor:
        values = [
            torch.cosine_similarity(*(module(adapter(side).to(runtime.device)).float() for side in (one, two)))
            for one, two in zip(parts(texts, BATCH), parts(others, BATCH), strict=True)
        ]
        is_empty = torch.tensor([not text for text in texts])
        return torch.cat(values).cpu().masked_fill(is_empty, 0.0)

    return cosines
