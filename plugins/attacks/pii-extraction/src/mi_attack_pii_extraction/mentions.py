"""Which values a language model writes, how often, and how surely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mi_attack_pii_extraction.tagging import TAGGED, Tagger
from mi_text.reference_model import LanguageModel, mean_log_likelihoods


def mentioned(text: str, tagger: Tagger) -> list[str]:
    """Return the different values of all tagged kinds in a text."""
    return list(dict.fromkeys(value for kind in TAGGED for value in tagger.find(text, kind)))


def counts_of(texts: Iterable[str], tagger: Tagger) -> Counter[str]:
    """Return in how many of the texts each value stands."""
    return Counter(value for text in texts for value in mentioned(text, tagger))


def surest_mentions(texts: Sequence[str], values: Sequence[str], tagger: Tagger, model: LanguageModel) -> Tensor:
    """Return for each value the highest mean log-likelihood of a text that mentions it, float32 (values,), in nats.

    The model is asked once about each different text with such a value. -inf for values that no text mentions.
    """
    place = {value: index for index, value in enumerate(values)}
    found = {text: [place[value] for value in mentioned(text, tagger) if value in place] for text in texts}
    asked = [text for text, places in found.items() if places]
    best = torch.full((len(values),), -torch.inf)
    if asked:
        for text, sure in zip(asked, mean_log_likelihoods(model, asked), strict=True):
            best[found[text]] = best[found[text]].maximum(sure)
    return best
