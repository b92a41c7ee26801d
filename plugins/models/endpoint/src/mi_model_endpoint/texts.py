"""Language models and encoders behind OpenAI's interface: texts in; embeddings, completions, log-probabilities out.

Source: the REST reference of OpenAI (``/embeddings``, ``/completions``, ``/models``), which vLLM and others follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from mi_model_endpoint.answers import AnswerCache
from mi_model_endpoint.client import Connection, limiter_of
from mi_model_endpoint.protocols import MalformedError, Message, member, numbers
from micore.errors import ModelError, TargetError, UsageError

GENERATE, LIKELIHOODS = "generate", "likelihoods"
Found = TypeVar("Found")


class Sampling(Protocol):
    """How texts go on, as far as it can be asked for here."""

    max_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    hot: float | None


class TextEndpoint:
    """A model of texts at an address: ``http://HOST/v1``."""

    def __init__(self, connection: Connection, model: str, cache: AnswerCache | None = None) -> None:
        self.connection, self.model, self.cache = connection, model, cache
        config = connection.config
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="endpoint")
        self._limiter = limiter_of(config.rate, config.batch)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return the embedding of each text, float32 (N, d).

        Raises: TargetError.
        """
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        known = self.cache.find(keys) if self.cache is not None else {}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        found = dict(zip(new, self._asked("/embeddings", "input", list(new.values()), {}, _embeddings), strict=True))
        if self.cache is not None and found:
            self.cache.keep(found)
        known |= found
        rows = [known[key] for key in keys]
        if len({len(row) for row in rows}) > 1:
            raise TargetError(f"{self.connection.url} gave embeddings of different lengths")
        return torch.stack(rows)

    def generate(self, texts: Sequence[str], *, sampling: Sampling, rng: object) -> list[str]:
        """Return how each text goes on; ``rng`` is not used, since the server draws.

        Raises: TargetError; UsageError for a temperature that falls, which cannot be asked for.
        """
        if sampling.hot is not None:
            raise UsageError(
                f"{self.connection.url} takes one temperature for a whole text; this asks for one that falls",
                hint="an option of the attack without it (hot), or the checkpoint itself as the target (hf:)",
            )
        asked = {name: getattr(sampling, name) for name in ("max_tokens", "temperature", "top_k", "top_p")}
        fields = {name: value for name, value in asked.items() if value is not None}
        return self._asked("/completions", "prompt", texts, fields, _completions)

    def likelihoods(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the log-likelihood of each token of each text but the first, in nats, (T - 1,).

        That of the first token and that of the end are not told by this interface.
        Raises: TargetError, also when the server gives no log-probabilities of what it is sent.
        """
        fields = {"max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        found = self._asked("/completions", "prompt", texts, fields, _likelihoods)
        if any(row is None for row in found):
            raise TargetError(
                f"{self.connection.url} gives no log-probabilities of a prompt (echo with logprobs)",
                hint="attack it by its completions (-M answer=label), or the checkpoint itself (hf:)",
            )
        return [row for row in found if row is not None]

    def next_token(self, texts: Sequence[str]) -> Tensor:
        """Refuse: what is told of the next token are the names of a few, not a distribution over a vocabulary.

        Raises: UsageError.
        """
        raise UsageError(
            f"{self.connection.url} gives no distribution of the next token, which this attack needs",
            hint="an attack that asks for completions or likelihoods, or the checkpoint itself as the target (hf:)",
        )

    def _asked(
        self, path: str, name: str, texts: Sequence[str], fields: Mapping[str, Any],
        read: Callable[[Any, int], list[Found]],
    ) -> list[Found]:  # fmt: skip
        """Send texts in requests of ``batch``, and return one result for each."""

        def ask(part: Sequence[str]) -> list[Found]:
            if self._limiter is not None:
                self._limiter.try_acquire(self.connection.url, weight=len(part))
            document = {"model": self.model, name: list(part), **fields}
            message = Message(json.dumps(document).encode())
            return self.connection.post(path, message, lambda answer: read(answer, len(part)))

        size = self.connection.config.batch
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [result for results in self._pool.map(ask, parts) for result in results]


def served_model(connection: Connection, named: str | None) -> str:
    """Return the name of the model to ask: the one that is named, or the only one that is served.

    Raises: ModelError when it must be named; TargetError.
    """
    if named is not None:
        return named
    document = connection.get("/models")
    listed = document.get("data") if isinstance(document, dict) else None
    names = [str(item["id"]) for item in listed or [] if isinstance(item, dict) and "id" in item]
    if len(names) != 1:
        raise ModelError(
            f"{connection.url} serves {len(names)} models: {', '.join(names[:5]) or 'none that it names'}",
            hint="-M model=NAME",
        )
    return names[0]


def _embeddings(document: Any, n: int) -> list[Tensor]:
    rows = [numbers(member(item, "embedding", list)).flatten() for item in _items(document, "data", n)]
    if not all(len(row) and bool(torch.isfinite(row).all()) for row in rows):
        raise MalformedError("an embedding is empty or not finite")
    return rows


def _completions(document: Any, n: int) -> list[str]:
    return [str(member(item, "text", str)).strip() for item in _items(document, "choices", n)]


def _likelihoods(document: Any, n: int) -> list[Tensor | None]:
    """Return None for a text of which no log-probabilities are told."""
    found: list[Tensor | None] = []
    for item in _items(document, "choices", n):
        told = item.get("logprobs")
        values = told.get("token_logprobs") if isinstance(told, dict) else None
        if isinstance(values, list) and values and values[0] is None:  # nothing stands before the first token
            values = values[1:]
        found.append(numbers(values).flatten() if isinstance(values, list) else None)
    return found


def _items(document: Any, name: str, n: int) -> list[dict[str, Any]]:
    """Return the results of n texts in the order of the texts."""
    items = member(document, name, list)
    if len(items) != n or sorted(member(item, "index", int) for item in items) != list(range(n)):
        raise MalformedError(f"it has {len(items)} results for {n} texts, or they are not numbered")
    return sorted(items, key=lambda item: int(item["index"]))
