"""A process that reaches no other machine: what it asks for beyond itself is refused at once, and not waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOCAL = ("localhost", "127.0.0.1", "::1", "", None)


@contextmanager
def offline() -> Iterator[list[str]]:
    """Refuse every name and address but this machine's; give the list of those that were asked for.

    `time.sleep` returns at once: whoever tries again after a while gets the same answer.
    """
    asked: list[str] = []
    resolve, connect, sleep = socket.getaddrinfo, socket.socket.connect, time.sleep

    def resolved(host: Any, *arguments: Any, **others: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in LOCAL:
            return resolve(host, *arguments, **others)
        asked.append(str(name))
        raise socket.gaierror(socket.EAI_AGAIN, "no network in this check")

    def connected(self: socket.socket, address: Any) -> None:
        if not isinstance(address, tuple) or address[0] in LOCAL:
            return connect(self, address)
        asked.append(str(address[0]))
        raise OSError("no network in this check")

    socket.getaddrinfo, socket.socket.connect = resolved, connected  # type: ignore[assignment, method-assign]
    time.sleep = lambda seconds: None
    try:
        yield asked
    finally:
        socket.getaddrinfo, socket.socket.connect = resolve, connect  # type: ignore[method-assign]
        time.sleep = sleep
