"""Asking targets about texts: embeddings, continuations, likelihoods, in batches of constant size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from mi_text.language_model import GENERATE, LIKELIHOODS
from mi_text.sampling import Sampling
from mi_text.tokenizing import decode, tokenizer_of
from micore.runtime import Random
from micore.target import Target

BATCH = 64
Found = TypeVar("Found")


def embed(target: Target, texts: Sequence[str], batch: int = BATCH) -> Tensor:
    """Return the target's answers to texts, (N, d), on its device; the same text gets the same answer in any batch.

    Texts are asked in the order of their lengths, so that little is padding, and each different text once.
    """
    different = sorted(set(texts), key=lambda text: (len(text), text))
    place = {text: index for index, text in enumerate(different)}
    answers = torch.cat([target.scores(part) for part in _parts(different, batch)])
    return answers[torch.tensor([place[text] for text in texts], device=answers.device)]


def generate(target: Target, prompts: Sequence[str], sampling: Sampling, rng: Random, batch: int = BATCH) -> list[str]:
    """Return how the target goes on with each prompt, without the prompt; one query each."""
    found: list[str] = []
    for part in _parts(prompts, batch):
        answers = target.ask(GENERATE, part, sampling=sampling, rng=rng)
        found += decode(tokenizer_of(target.input_spec), answers.tolist()) if isinstance(answers, Tensor) else answers
    return found


def likelihoods(target: Target, texts: Sequence[str], batch: int = BATCH) -> list[Tensor]:
    """Return the log-likelihood of each token of each text and of its end, in nats, (T + 1,) on the CPU."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    for rows in _parts(order, batch):
        answers = target.ask(LIKELIHOODS, [texts[row] for row in rows])
        for row, values in zip(rows, _rows(answers), strict=True):
            found[row] = values
    return found


def total_likelihoods(target: Target, texts: Sequence[str], batch: int = BATCH) -> Tensor:
    """Return the log-likelihood of each whole text, its end included, (N,) in nats, on the CPU."""
    return torch.stack([values.sum() for values in likelihoods(target, texts, batch)])


def _rows(answers: Any) -> list[Tensor]:
    """Return rows without the padding at their ends, whose log-likelihood is exactly 0."""
    if not isinstance(answers, Tensor):
        return [torch.as_tensor(row, dtype=torch.float32) for row in answers]
    places = torch.arange(1, answers.shape[1] + 1, device=answers.device)
    lengths = ((answers != 0) * places).amax(dim=1).tolist()
    return [row[:length] for row, length in zip(answers.cpu(), lengths, strict=True)]


def _parts(items: Sequence[Found], size: int) -> list[Sequence[Found]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def batched(ask: Callable[[Sequence[str]], Tensor], texts: Sequence[str], batch: int = BATCH) -> Tensor:
    """Return what a function gives for texts, asked part by part, (N, ...)."""
    return torch.cat([ask(part) for part in _parts(texts, batch)])
