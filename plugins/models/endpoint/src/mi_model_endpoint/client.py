"""Asking an endpoint: in parallel, at a bounded rate, again when it fails, and never without end."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import SystemRandom
from typing import Any, TypeVar

import httpx2
import torch
from pyrate_limiter import Duration, Limiter, Rate
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from torch import Tensor

from mi_model_endpoint.answers import AnswerCache, keys_of
from mi_model_endpoint.config import TOKEN, EndpointConfig
from mi_model_endpoint.protocols import MalformedError, Message, WireProtocol
from micore.errors import TargetError

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may go away."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 30.0
TOLERANCE = 1e-3
JITTER = SystemRandom()
"""Of its own: no generator that results may depend on is touched."""


T = TypeVar("T")


class TransientError(Exception):
    """A request failed in a way that may go away. wait_s: how long the server asks to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Connection:
    """HTTP with one address: credentials, limits, and errors that say whether they may go away."""

    def __init__(self, url: str, config: EndpointConfig, token: str | None) -> None:
        self.url, self.config = url, config
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx2.Limits(max_connections=config.concurrency)
        self._client = httpx2.Client(headers=headers, timeout=config.timeout, limits=limits)
        weakref.finalize(self, self._client.close)
        self._retrying = Retrying(
            retry=retry_if_exception_type(TransientError), stop=stop_after_attempt(config.attempts), wait=_waiting,
            reraise=True,
        )  # fmt: skip

    def get(self, path: str = "") -> Any:
        """Return the JSON document at a path.

        Raises: TargetError.
        """
        return self._again(lambda: self._document(lambda: self._client.get(self.url + path)))

    def post(self, path: str, message: Message, read: Callable[[Any], T]) -> T:
        """Send a message and read the answer; an answer that cannot be read is asked for again.

        Raises: TargetError.
        """
        headers = {"Content-Type": message.content_type}

        def ask() -> T:
            send = self._client.post
            document = self._document(lambda: send(self.url + path, content=message.content, headers=headers))
            try:
                return read(document)
            except MalformedError as error:
                raise TransientError(f"the answer cannot be used: {error}") from error

        return self._again(ask)

    def _again(self, ask: Callable[[], T]) -> T:
        try:
            return self._retrying(ask)
        except TransientError as error:
            raise TargetError(
                f"{self.url} failed {self.config.attempts} times; the last time: {error}",
                hint="see to the server, or raise -M attempts=, timeout=; then go on",
            ) from error

    def _document(self, send: Callable[[], httpx2.Response]) -> Any:
        try:
            response = send()
        except httpx2.TransportError as error:
            raise TransientError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
        if response.status_code in PASSING:
            raise TransientError(f"status {response.status_code}", _asked_wait(response.headers))
        if response.status_code != httpx2.codes.OK:
            raise TargetError(
                f"{self.url} answered with status {response.status_code}: {_short(response.text)}",
                hint=f"set {TOKEN}" if response.status_code in (401, 403) else "see --model and its -M options",
            )
        try:
            return json.loads(response.content)
        except ValueError as error:
            raise TransientError("the answer is no JSON") from error


class Endpoint:
    """A target behind HTTP: inputs (N, ...) to scores (N, K) or labels (N,), as `micore.external.Respond`."""

    def __init__(
        self, connection: Connection, protocol: WireProtocol, n_classes: int, cache: AnswerCache | None = None
    ) -> None:
        self.connection, self.protocol, self.n_classes, self.cache = connection, protocol, n_classes, cache
        config = connection.config
        self._batch = 1 if protocol.one_by_one else config.batch
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="endpoint")
        self._limiter = limiter_of(config.rate, self._batch)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Ask for all samples.

        Raises: TargetError.
        """
        inputs = inputs.detach().float().cpu()
        return self._asked(inputs) if self.cache is None else self._remembered(inputs, self.cache)

    def _remembered(self, inputs: Tensor, cache: AnswerCache) -> Tensor:
        keys = keys_of(inputs)
        known: dict[bytes, Tensor] = cache.find(keys)
        new = {key: index for index, key in enumerate(keys) if key not in known}
        if new:
            answers = self._asked(inputs[list(new.values())])
            found = {key: answer.reshape(-1) for key, answer in zip(new, answers, strict=True)}
            cache.keep(found)
            known |= found
        rows = torch.stack([known[key] for key in keys])
        return rows if rows.is_floating_point() else rows[:, 0]

    def _asked(self, inputs: Tensor) -> Tensor:
        return torch.cat(list(self._pool.map(self._ask, inputs.split(self._batch))))

    def _ask(self, inputs: Tensor) -> Tensor:
        if self._limiter is not None:
            self._limiter.try_acquire(self.connection.url, weight=len(inputs))
        return self.connection.post(
            self.protocol.path, self.protocol.write(inputs), lambda document: self._read(document, len(inputs))
        )

    def _read(self, document: Any, n: int) -> Tensor:
        """Read an answer and check its values, since a server that is unwell sends NaN."""
        answers = self.protocol.read(document, n)
        if not answers.is_floating_point():
            if not bool(((answers >= 0) & (answers < self.n_classes)).all()):
                raise MalformedError("a label is none of the data set's")
            return answers
        if answers.shape[1] != self.n_classes:
            raise MalformedError(
                f"it has {answers.shape[1]} scores a sample; the data set has {self.n_classes} classes"
            )
        if not bool(torch.isfinite(answers).all()):
            raise MalformedError("a score is not finite")
        return self._as_probabilities(answers)

    def _as_probabilities(self, answers: Tensor) -> Tensor:
        if self.connection.config.values == "logits":
            return answers.softmax(dim=1)
        if not bool(((answers >= -TOLERANCE) & (answers <= 1 + TOLERANCE)).all()):
            raise MalformedError("a score is no probability (-M values=logits for logits)")
        return answers.clamp(0, 1)


def labels_only(respond: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what keeps the labels of the answers and drops the rest."""

    def labels(inputs: Tensor) -> Tensor:
        answers = respond(inputs)
        return answers.argmax(dim=1) if answers.is_floating_point() else answers

    return labels


def limiter_of(rate: float | None, batch: int) -> Limiter | None:
    """Allow ``rate`` samples a second, and at least one batch at a time."""
    if rate is None:
        return None
    seconds = max(1.0, batch / rate)
    return Limiter(Rate(max(batch, round(rate * seconds)), round(seconds * Duration.SECOND)))


def _waiting(state: RetryCallState) -> float:
    """Return how long to wait: what the server asks for, or twice as long each time, with a random part."""
    error = state.outcome.exception() if state.outcome else None
    grown = FIRST_WAIT_S * 2 ** (state.attempt_number - 1) * JITTER.uniform(0.75, 1.25)
    asked = error.wait_s if isinstance(error, TransientError) else None
    return min(LONGEST_WAIT_S, grown if asked is None else max(asked, FIRST_WAIT_S))


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.replace(".", "", 1).isdecimal() else None


def _short(text: str, limit: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "..."
