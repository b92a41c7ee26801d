"""Asking a model behind OpenAI's interface: several requests at a time, again when one fails, never without end.

Source: the REST reference of OpenAI (``/chat/completions`` with ``image_url``), which vLLM, Ollama and others follow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import SystemRandom
from typing import Any

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from mi_evaluator_vlm_judge.config import VlmJudgeConfig
from mi_evaluator_vlm_judge.kept import KeptVerdicts
from mi_evaluator_vlm_judge.verdicts import UnreadableError, Verdict, verdict_of
from micore.errors import TargetError
from micore.files import digest

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may go away."""
WRONG_KEY = (401, 403)
FILTER = re.compile(r"content[_ ](?:filter|policy)|safety system|moderation", re.IGNORECASE)
"""In the text of a status 400: the request was refused for what it shows."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 30.0
JITTER = SystemRandom()
"""Of its own: no generator that results may depend on is touched."""

Ask = Callable[[], Mapping[str, Any]]
"""Makes the body of a request when its turn comes, so that not all pictures are in memory."""


class TransientError(Exception):
    """A request failed in a way that may go away. wait_s: how long the server asks to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Client:
    """One address with its key, which is in no error and in no file."""

    def __init__(self, config: VlmJudgeConfig, key: str | None, kept: KeptVerdicts | None = None) -> None:
        self._config, self._key, self._kept = config, key, kept
        self._failed: TargetError | None = None
        self._url = f"{(config.url or '').rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=config.workers)
        self._http = httpx2.Client(headers=headers, timeout=config.timeout, limits=limits)
        self._retrying = Retrying(
            retry=retry_if_exception_type(TransientError), stop=stop_after_attempt(config.retries + 1),
            wait=_waiting, reraise=True,
        )  # fmt: skip

    def ask_all(self, requests: Sequence[Ask]) -> list[Verdict]:
        """Return the verdict on each request, in their order.

        Raises: TargetError for the first that fails for good; requests that wait are then not sent.
        """
        pool = ThreadPoolExecutor(self._config.workers, thread_name_prefix="vlm-judge")
        try:
            return list(pool.map(self._verdict, requests))
        finally:
            pool.shutdown(cancel_futures=True)
            self._http.close()

    def _verdict(self, request: Ask) -> Verdict:
        if self._failed is not None:  # before the pool is shut, a worker may take up the next request
            raise self._failed
        try:
            return self._known_or_asked(request)
        except TargetError as error:
            self._failed = error
            raise

    def _known_or_asked(self, request: Ask) -> Verdict:
        body = request()
        name = digest(self._url, dict(body))
        verdict = self._kept.find(name) if self._kept else None
        if verdict is None:
            verdict = self._asked(json.dumps(body).encode())
            if self._kept:
                self._kept.keep(name, verdict)
        return verdict

    def _asked(self, content: bytes) -> Verdict:
        try:
            verdict: Verdict = self._retrying(self._once, content)
        except TransientError as error:
            raise TargetError(
                f"vlm-judge: {self._url} failed {self._config.retries + 1} times; the last time: {error}",
                hint=f"see to the server, or raise retries=, timeout=; {self._go_on()}",
            ) from None
        return verdict

    def _once(self, content: bytes) -> Verdict:
        try:
            response = self._http.post(self._url, content=content, headers={"Content-Type": "application/json"})
        except httpx2.TransportError as error:
            raise TransientError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from None
        status = response.status_code
        if status in PASSING:
            raise TransientError(f"status {status}", _asked_wait(response.headers))
        if status == httpx2.codes.BAD_REQUEST and FILTER.search(response.text):
            return Verdict.REFUSED
        if status != httpx2.codes.OK:
            raise self._final(status, response.text)
        try:
            return verdict_of(json.loads(response.content))
        except (ValueError, UnreadableError) as error:
            raise TransientError(f"the answer cannot be used: {error}") from None

    def _final(self, status: int, text: str) -> TargetError:
        """Return the error of a status that does not go away. What a server says of a wrong key may hold part of it."""
        if status in WRONG_KEY:
            named = self._config.key_env
            hint = f"put a valid key into ${named}" if named else "name the variable that holds the key: key_env=NAME"
            return TargetError(f"vlm-judge: {self._url} answered with status {status}: no valid key", hint=hint)
        said = " ".join(text.replace(self._key, "...").split() if self._key else text.split())[:120]
        return TargetError(
            f"vlm-judge: {self._url} answered with status {status}: {said}",
            hint=f"see url=, model=, fields=; {self._go_on()}",
        )

    def _go_on(self) -> str:
        return "what was answered is kept: judge again" if self._kept else "cache=true would keep what was answered"


def _waiting(state: RetryCallState) -> float:
    """Return how long to wait: what the server asks for, or twice as long each time, with a random part."""
    error = state.outcome.exception() if state.outcome else None
    grown = FIRST_WAIT_S * 2 ** (state.attempt_number - 1) * JITTER.uniform(0.75, 1.25)
    asked = error.wait_s if isinstance(error, TransientError) else None
    return min(LONGEST_WAIT_S, grown if asked is None else max(asked, FIRST_WAIT_S))


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.replace(".", "", 1).isdecimal() else None
