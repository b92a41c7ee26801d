"""A small server that speaks the Open Inference Protocol: what an audit of a remote target is tried on."""

from __future__ import annotations

import base64
import io
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.concurrency import run_in_threadpool
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional

from micore import __version__
from micore.inputs import InputSpec
from micore.target import Target
from micore.threat import Access

MOST_SAMPLES = 4096
GREY, COLOR = 1, 3


class InputTensor(BaseModel):
    """A tensor of a request. For BYTES, ``data`` holds images as files (PNG, JPEG) in base64."""

    name: str
    shape: list[int]
    datatype: Literal["FP32", "BYTES"]
    data: list[Any]


class InferRequest(BaseModel):
    """The body of ``POST .../infer``."""

    inputs: list[InputTensor]
    id: str | None = None


@dataclass
class Counter:
    """Samples that were answered: what the ledger of an attack is checked against."""

    samples: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, samples: int) -> None:
        """Count a request."""
        with self._lock:
            self.samples += samples
            self.requests += 1


@dataclass(frozen=True, kw_only=True)
class Served:
    """A target under a name. Its access says what is answered: labels, or the scores as its form shows them."""

    name: str
    target: Target
    counter: Counter = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gives_scores(self) -> bool:
        """Whether scores are answered."""
        return self.target.access >= Access.SCORES

    def metadata(self) -> dict[str, Any]:
        """Return what the protocol calls the model's metadata."""
        labels = {"name": "labels", "datatype": "INT64", "shape": [-1]}
        scores = {"name": "scores", "datatype": "FP32", "shape": [-1, self.target.n_classes]}
        return {
            "name": self.name, "versions": [], "platform": "micore",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, *self.target.input_spec.shape]}],
            "outputs": [scores, labels] if self.gives_scores else [labels],
        }  # fmt: skip

    def answer(self, images: Tensor) -> dict[str, Any]:
        """Return the protocol's answer to canonical images (N, C, H, W)."""
        with self._lock:  # a ledger counts one batch at a time
            scores = self.target.scores(images) if self.gives_scores else None
            labels = self.target.labels(images) if scores is None else scores.argmax(dim=1)
        self.counter.add(len(images))
        outputs = [_output("labels", "INT64", labels)]
        if scores is not None:
            outputs.insert(0, _output("scores", "FP32", scores))
        return {"model_name": self.name, "outputs": outputs}


def create_app(served: Served, token: str | None = None) -> FastAPI:
    """Return the application; with a token every request but that for health must bear it."""
    app = FastAPI(title="mi serve", version=__version__)
    guard = [Depends(_guard(token))] if token else []
    model = f"/v2/models/{served.name}"

    @app.get("/v2")
    def server() -> dict[str, Any]:
        return {"name": "micore", "version": __version__, "extensions": ["statistics"]}

    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    @app.get(f"{model}/ready")
    def ready() -> dict[str, bool]:
        return {"live": True, "ready": True}

    @app.get(model, dependencies=guard)
    def metadata() -> dict[str, Any]:
        return served.metadata()

    @app.get(f"{model}/stats", dependencies=guard)
    def statistics() -> dict[str, Any]:
        count = served.counter
        return {"model_stats": [{"name": served.name, "inference_count": count.samples,
                                 "execution_count": count.requests}]}  # fmt: skip

    @app.post(f"{model}/infer", dependencies=guard)
    async def infer(request: InferRequest) -> dict[str, Any]:
        images = read_images(request, served.target.input_spec)
        answer = await run_in_threadpool(served.answer, images)
        return answer if request.id is None else {**answer, "id": request.id}

    return app


def _guard(token: str) -> Callable[..., None]:
    def check(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "a token is needed")

    return check


def read_images(request: InferRequest, spec: InputSpec) -> Tensor:
    """Decode the one input to canonical images (N, C, H, W).

    Raises: HTTPException 400 that says what does not fit; 413 for too many samples.
    """
    if len(request.inputs) != 1:
        raise HTTPException(400, "one input is expected")
    tensor = request.inputs[0]
    if not tensor.shape or not 0 < tensor.shape[0] <= MOST_SAMPLES:
        raise HTTPException(413, f"1 to {MOST_SAMPLES} samples in a request")
    if tensor.datatype == "BYTES":
        return torch.stack([_decoded(item, spec) for item in tensor.data])
    expected = [tensor.shape[0], *spec.shape]
    if list(tensor.shape) != expected:
        raise HTTPException(400, f"input of shape {tensor.shape}, not {expected}")
    try:
        values = torch.tensor(tensor.data, dtype=torch.float32).view(expected)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HTTPException(400, "data do not fill the shape") from error
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise HTTPException(400, "pixels are from 0 to 1")
    return values


def _decoded(item: object, spec: InputSpec) -> Tensor:
    """Decode an image file in base64, and bring it to the input's size and colours."""
    channels, height, width = spec.shape
    try:
        image = Image.open(io.BytesIO(base64.b64decode(str(item), validate=True)))
        pixels = np.asarray(image.convert("L" if channels == GREY else "RGB"), dtype=np.float32) / 255
    except (ValueError, UnidentifiedImageError, OSError) as error:
        raise HTTPException(400, "an image cannot be read") from error
    values = torch.from_numpy(pixels)
    values = values[None] if values.ndim == 2 else values.permute(2, 0, 1)
    if values.shape[1:] == (height, width):
        return values
    return functional.interpolate(values[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)


def _output(name: str, datatype: str, values: Tensor) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.flatten().tolist()}
