"""A served target, on a thread of its own, and a server that can be made to misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from torch import Tensor, nn

from mi_model_serve.app import Served, create_app
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import AnswerForm, Target
from micore.threat import Access, Ledger

SHAPE = (1, 4, 4)
CLASSES = ("zero", "one", "two")


class Network(nn.Module):
    """Three classes by a fixed linear map."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
        self.linear = nn.Linear(16, 3)
        self.linear.weight.data.copy_(weights)
        self.linear.bias.data.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.linear(images.flatten(1))
        return logits


def make_target(access: Access = Access.SCORES, form: AnswerForm | None = None) -> Target:
    """Return the network as a target."""
    return Target(
        Network(), access=access, adapter=lambda samples: samples, input_spec=InputSpec(shape=SHAPE), classes=CLASSES,
        ledger=Ledger(), runtime=Runtime(device=torch.device("cpu")), form=form,
    )  # fmt: skip


@dataclass
class Misbehaviour:
    """What the server does to the next requests: each entry is one of them, and is then forgotten."""

    plan: list[Any] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)

    def install(self, app: FastAPI) -> FastAPI:
        """Put itself before an application."""

        @app.middleware("http")
        async def spoil(request: Request, call_next: Callable[..., Any]) -> Response:
            self.seen.append(request)
            step = self.plan.pop(0) if self.plan and request.method == "POST" else None
            if isinstance(step, int):
                return Response("unwell", status_code=step, headers={"Retry-After": "0.3"})
            if isinstance(step, str):
                return Response(step, media_type="application/json")
            if isinstance(step, float):
                time.sleep(step)
            answer: Response = await call_next(request)
            return answer

        return app


class Server:
    """An application at an address of this machine."""

    def __init__(self, app: FastAPI, port: int = 0) -> None:
        self._config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical")
        self._server = uvicorn.Server(self._config)
        self._socket = self._config.bind_socket()
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    @property
    def url(self) -> str:
        """The model's address."""
        return f"http://127.0.0.1:{self.port}/v2/models/target"


@dataclass
class Setup:
    """A running server and what a test needs of it."""

    server: Server
    served: Served
    misbehaviour: Misbehaviour

    @property
    def url(self) -> str:
        """The model's address."""
        return self.server.url

    @torch.no_grad()
    def expected(self, images: Tensor) -> Tensor:
        """Return the network's own scores."""
        scores: Tensor = Network()(images).softmax(dim=1)
        return scores


@pytest.fixture
def serving() -> Iterator[Callable[..., Setup]]:
    """Start servers; they end with the test."""
    running: list[Server] = []

    def start(access: Access = Access.SCORES, form: AnswerForm | None = None, token: str | None = None) -> Setup:
        served, misbehaviour = Served(name="target", target=make_target(access, form)), Misbehaviour()
        server = Server(misbehaviour.install(create_app(served, token)))
        running.append(server.__enter__())
        return Setup(server, served, misbehaviour)

    yield start
    for server in running:
        server.__exit__()


@dataclass
class Hosting:
    """Servers of any application, which can be made to misbehave."""

    servers: list[Server] = field(default_factory=list)
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)

    def start(self, app: FastAPI) -> str:
        """Start a server and return its address."""
        self.servers.append(Server(self.misbehaviour.install(app)).__enter__())
        return f"http://127.0.0.1:{self.servers[-1].port}"


@pytest.fixture
def hosting() -> Iterator[Hosting]:
    """Start servers; they end with the test."""
    started = Hosting()
    yield started
    for server in started.servers:
        server.__exit__()
