"""A server on a thread of its own that plays the endpoint, and a model behind it that can really see."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mi_evaluator_vlm_judge.pictures import GAP, SIDE

Answer = str | int | dict[str, Any] | bytes
"""Words of the model, a status, a whole document, or bytes that are none."""


def seen(body: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return A (3, S, S) and the B (R, 3, S, S) of a request, in [0, 1]."""
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, 3)
    images = pixels[:SIDE].permute(2, 0, 1).float() / 255
    return images[:, :, :SIDE], torch.stack(images[:, :, SIDE + GAP :].split(SIDE, dim=2))


def honest(body: dict[str, Any]) -> str:
    """Say yes where A is nearer than 0.1 to the B on average over pixels."""
    one, others = seen(body)
    return "Yes." if float((one - others.mean(dim=0)).abs().mean()) < 0.1 else "no"


@dataclass
class Endpoint:
    """What is answered, in order or by the model, and what was asked.

    key: what requests must bring; plan: what the next requests get instead of the model's answer.
    """

    model: Callable[[dict[str, Any]], Answer] = honest
    key: str | None = None
    plan: list[Answer] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    seen = staticmethod(seen)

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, bytes]:
        """Return status and content."""
        with self.lock:
            self.bodies.append(body)
            self.keys.append(key)
            planned = self.plan.pop(0) if self.plan else None
        if self.key is not None and key != f"Bearer {self.key}":
            return 401, f"Incorrect API key provided: {key}".encode()
        said = self.model(body) if planned is None else planned
        if isinstance(said, int):
            return said, f"status {said} for {key}".encode()
        if isinstance(said, bytes):
            return 200, said
        document = {"choices": [{"message": {"content": said}}]} if isinstance(said, str) else said
        return int(document.pop("status", 200)), json.dumps(document).encode()


class Handler(BaseHTTPRequestHandler):
    """Passes requests on to the endpoint."""

    endpoint: Endpoint
    wbufsize = -1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, content = self.endpoint.answer(body, self.headers.get("Authorization"))
        if self.path != "/v1/chat/completions":
            status, content = 404, b"no such path"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Endpoint]:
    """Start the server; verdicts are kept in a place of the test's own, and nobody waits long."""
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mi_evaluator_vlm_judge.client.FIRST_WAIT_S", 0.001)
    found = Endpoint()
    handler = type("Bound", (Handler,), {"endpoint": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield found
    server.shutdown()
    server.server_close()
    thread.join(10)
