"""Asking targets about texts: embeddings, continuations, likelihoods, in batches of constant size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from mi_text.adapter import TextAdapter
from mi_text.language_model import GENERATE, LIKELIHOODS
from mi_text.sampling import Sampling
from mi_text.tokenizing import tokenizer_of
from micore.inputs import InputSpec
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
    answers = torch.cat([target.scores(part) for part in parts(different, batch)])
    return answers[torch.tensor([place[text] for text in texts], device=answers.device)]


def generate(target: Target, prompts: Sequence[str], sampling: Sampling, rng: Random, batch: int = BATCH) -> list[str]:
    """Return how the target goes on with each prompt, without it; prompt and result are one text. One query each."""
    found: list[str] = []
    for part in parts(prompts, batch):
        answers = target.ask(GENERATE, part, sampling=sampling, rng=rng)
        found += written(target.input_spec, answers) if isinstance(answers, Tensor) else list(answers)
    return found


def likelihoods(target: Target, texts: Sequence[str], batch: int = BATCH) -> list[Tensor]:
    """Return the log-likelihood of each token of each text and of its end, in nats, (T + 1,) on the CPU."""
    return in_order_of_length(lambda part: target.ask(LIKELIHOODS, part), target.input_spec, texts, batch)


def in_order_of_length(
    ask: Callable[[Sequence[str]], Any], spec: InputSpec, texts: Sequence[str], batch: int
) -> list[Tensor]:
    """Return the likelihoods of texts, which are asked about in the order of their lengths: little is padding then."""
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), texts[row]))
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    for rows in parts(order, batch):
        asked = [texts[row] for row in rows]
        for row, values in zip(rows, _unpadded(ask(asked), spec, asked), strict=True):
            found[row] = values
    return found


def _unpadded(answers: Any, spec: InputSpec, texts: Sequence[str]) -> list[Tensor]:
    """Return rows without their padding.

    Tokens are counted, and not read off the answers: a token that is certain has log-likelihood 0 as padding has.
    """
    if not isinstance(answers, Tensor):
        return [torch.as_tensor(row, dtype=torch.float32) for row in answers]
    lengths = [len(ids) + 1 for ids in TextAdapter(spec).encode(texts)]
    return [row[:length] for row, length in zip(answers.float().cpu(), lengths, strict=True)]


def written(spec: InputSpec, ids: Tensor) -> list[str]:
    """Return rows of ids as texts, with the spaces around them and without special tokens."""
    return list(tokenizer_of(spec).decode_batch(ids.tolist(), skip_special_tokens=True))


def parts(items: Sequence[Found], size: int) -> Iterator[Sequence[Found]]:
    """Yield the items, so many at once."""
    return (items[start : start + size] for start in range(0, len(items), size))
