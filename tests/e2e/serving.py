"""``mi serve`` in a process of its own, and a relay before it that spoils answers."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.e2e.commands import CommandLine

SLOW_S = 1.5


class Server:
    """A served target, which can be killed and started again at its port."""

    def __init__(self, shell: CommandLine, target: Path, *arguments: str) -> None:
        self.shell, self.arguments = shell, (str(target), *arguments)
        self.port = "0"
        self.start()

    def start(self) -> None:
        """Start it, and wait for the address that it prints."""
        self.process = self.shell.start("serve", *self.arguments, "--port", self.port)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        found = re.search(r":(\d+)/", self.url)
        assert found is not None, self.url
        self.port = found[1]

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def answered(self) -> int:
        """Return how many samples it has answered since it was started."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as response:  # waits until it listens
            count: int = json.load(response)["model_stats"][0]["inference_count"]
        return count


class Relay:
    """Passes requests on to a server; ``plan`` says what becomes of the next answers, one entry for each.

    An int is a status in place of the answer, "slow" delays it, "malformed" cuts it, "nan" spoils its scores; None
    leaves it as it is.
    """

    def __init__(self, server: Server, plan: list[int | str | None]) -> None:
        self.server, self.plan = server, plan
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The model's address."""
        return self.server.url.replace(f":{self.server.port}/", f":{self._http.server_port}/")

    def close(self) -> None:
        """Stop to listen."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        """Pass a request on, and spoil what comes back."""
        with self._lock:
            step = self.plan.pop(0) if self.plan and method == "POST" else None
        if isinstance(step, int):
            return step, b"unwell"
        try:
            body = self._passed_on(method, path, content)
        except (OSError, HTTPException):  # the server is gone
            return 502, b"nobody there"
        return 200, SPOILED[step](body) if step else body

    def _passed_on(self, method: str, path: str, content: bytes) -> bytes:
        address = f"http://127.0.0.1:{self.server.port}{path}"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(address, content or None, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            body: bytes = response.read()
        return body

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond("GET")

            def do_POST(self) -> None:
                self._respond("POST")

            def _respond(self, method: str) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = relay.answer(method, self.path, content)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _slow(body: bytes) -> bytes:
    time.sleep(SLOW_S)
    return body


def _with_nan(body: bytes) -> bytes:
    document = json.loads(body)
    document["outputs"][0]["data"][0] = float("nan")
    return json.dumps(document).encode()


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "slow": _slow, "malformed": lambda body: body[: len(body) // 2], "nan": _with_nan,
}  # fmt: skip
