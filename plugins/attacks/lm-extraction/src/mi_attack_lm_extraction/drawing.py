"""Drawing texts from a language model (Carlini et al., 2021, section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from mi_text.reference_model import LanguageModel
from mi_text.sampling import Sampling
from micore.runtime import Random


def prompts_of(texts: Sequence[str], n: int, words: tuple[int, int], rng: Random) -> list[str]:
    """Return n beginnings of random texts, each of a random number of words between two, both included.

    A text that has fewer words is taken whole.
    """
    least, most = words
    rows = rng.integers(len(texts), (n,)).tolist()
    counts = rng.integers(most - least + 1, (n,)).tolist()
    return [" ".join(texts[row].split()[: least + count]) for row, count in zip(rows, counts, strict=True)]


def draw(model: LanguageModel, prompts: Sequence[str], sampling: Sampling, rng: Random) -> list[str]:
    """Return each prompt with how the model goes on, without spaces around."""
    found = model.generate(prompts, sampling, rng)
    return [(prompt + text).strip() for prompt, text in zip(prompts, found, strict=True)]
