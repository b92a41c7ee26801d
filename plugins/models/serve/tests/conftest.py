"""A served target on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import uvicorn
from torch import nn

from mi_model_serve.app import Served, create_app
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import AnswerForm, Target
from micore.threat import Access, Ledger


@dataclass
class Setup:
    """A running server."""

    served: Served
    url: str


@pytest.fixture
def serving() -> Iterator[Callable[..., Setup]]:
    """Start servers of a small network; they end with the test."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(access: Access = Access.SCORES, form: AnswerForm | None = None, token: str | None = None) -> Setup:
        target = Target(
            nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), access=access, adapter=lambda samples: samples,
            input_spec=InputSpec(shape=(1, 4, 4)), classes=("a", "b", "c"), ledger=Ledger(),
            runtime=Runtime(device=torch.device("cpu")), form=form,
        )  # fmt: skip
        served = Served(name="target", target=target)
        config = uvicorn.Config(create_app(served, token), host="127.0.0.1", port=0, log_level="critical")
        server, socket = uvicorn.Server(config), config.bind_socket()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Setup(served, f"http://127.0.0.1:{socket.getsockname()[1]}/v2/models/target")

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
