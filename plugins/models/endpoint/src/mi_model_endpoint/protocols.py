"""What is sent to an endpoint and what comes back, for each protocol. Nothing here touches the network.

Sources: the Open Inference Protocol, version 2 (KServe, Triton), REST part; TorchServe's inference API; the image
classification task of Hugging Face's inference endpoints.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

Document = Any
FLOATS, INTEGERS = ("FP64", "FP32", "FP16", "BF16"), ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT8")


class MalformedError(ValueError):
    """An answer is not what the protocol says."""


@dataclass(frozen=True, slots=True)
class Message:
    """The body of a request."""

    content: bytes
    content_type: str = "application/json"


class WireProtocol(Protocol):
    """A protocol: inputs (N, ...) to a message, and a JSON answer to scores (N, K) or labels int64 (N,)."""

    @property
    def path(self) -> str:
        """What is added to the model's address."""

    @property
    def one_by_one(self) -> bool:
        """Whether a request holds one sample only."""

    def write(self, inputs: Tensor) -> Message:
        """Encode samples."""

    def read(self, document: Document, n: int) -> Tensor:
        """Decode the answer to n samples. Raises: MalformedError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kserve:
    """The Open Inference Protocol: ``http://HOST/v2/models/NAME``. An output of integers holds labels."""

    input_name: str = "input"
    output: str | None = None
    png: bool = False
    path: str = "/infer"
    one_by_one: bool = False

    def write(self, inputs: Tensor) -> Message:
        """Encode samples as one tensor, or as PNGs in base64."""
        if self.png:
            shape, datatype, data = [len(inputs)], "BYTES", [_base64(image) for image in inputs]
        else:
            shape, datatype, data = list(inputs.shape), "FP32", inputs.flatten().tolist()
        tensor = {"name": self.input_name, "shape": shape, "datatype": datatype, "data": data}
        return _json({"inputs": [tensor]})

    def read(self, document: Document, n: int) -> Tensor:
        """Decode the output that was asked for, or the first one."""
        outputs = member(document, "outputs", list)
        named = [item for item in outputs if self.output is None or item.get("name") == self.output]
        if not named:
            raise MalformedError(f"it has no output {self.output!r}")
        output = named[0]
        datatype, data = member(output, "datatype", str), member(output, "data", list)
        kind = torch.int64 if datatype in INTEGERS else torch.float32
        return _shaped(numbers(data, kind).flatten(), n, labels=datatype in INTEGERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """JSON of our own: ``{"inputs": [[...]]}`` or ``{"images": ["PNG in base64"]}``, see the README."""

    classes: Sequence[str]
    png: bool = False
    path: str = ""
    one_by_one: bool = False

    def write(self, inputs: Tensor) -> Message:
        """Encode samples as nested lists, or as PNGs in base64."""
        return _json({"images": [_base64(image) for image in inputs]} if self.png else {"inputs": inputs.tolist()})

    def read(self, document: Document, n: int) -> Tensor:
        """Decode ``scores``, ``labels`` or ``top``."""
        if not isinstance(document, dict):
            raise MalformedError("it is no object")
        if "scores" in document:
            return _shaped(numbers(document["scores"], torch.float32).flatten(), n, labels=False)
        if "labels" in document:
            labels = [label_of(label, self.classes) for label in member(document, "labels", list)]
            return _shaped(torch.tensor(labels, dtype=torch.int64), n, labels=True)
        return _rows([named_scores(row, self.classes) for row in member(document, "top", list)], n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """TorchServe and Hugging Face: one image in, names (or numbers) of classes with their scores out."""

    classes: Sequence[str]
    png: bool = True
    path: str = ""
    one_by_one: bool = True

    def write(self, inputs: Tensor) -> Message:
        """Encode one sample, as a PNG or as JSON."""
        if self.png:
            return Message(png(inputs[0]), "image/png")
        return _json({"inputs": inputs[0].tolist()})

    def read(self, document: Document, n: int) -> Tensor:
        """Decode ``[{"label": ..., "score": ...}]``, ``{"name": score}``, a list of scores, or a label."""
        if isinstance(document, (str, int)) and not isinstance(document, bool):
            return torch.tensor([label_of(document, self.classes)])
        return _rows([named_scores(document, self.classes)], n)


# answers ------------------------------------------------------------------------------------------------


def named_scores(document: Document, classes: Sequence[str]) -> Tensor:
    """Return scores (K,) of what names some classes; those that are not named have 0.

    Raises: MalformedError.
    """
    if isinstance(document, list) and document and isinstance(document[0], list):
        document = document[0]  # Hugging Face wraps the answer to one sample in a list
    if isinstance(document, list) and document and not isinstance(document[0], dict):
        return numbers(document, torch.float32)
    if isinstance(document, list):
        pairs = [(member(item, "label", object), member(item, "score", object)) for item in document]
    elif isinstance(document, dict):
        pairs = list(document.items())
    else:
        raise MalformedError("it is neither a list nor an object")
    scores = torch.zeros(len(classes))
    for name, score in pairs:
        scores[label_of(name, classes)] = numbers(score, torch.float32)
    return scores


def label_of(name: object, classes: Sequence[str]) -> int:
    """Return the label of a class by its name, its number, or ``LABEL_<number>``.

    Raises: MalformedError.
    """
    text = str(name)
    if text in classes:
        return list(classes).index(text)
    digits = text.removeprefix("LABEL_")
    if digits.isdecimal() and int(digits) < len(classes):
        return int(digits)
    raise MalformedError(f"it names a class {text[:40]!r} that the data set does not have")


def _rows(rows: Sequence[Tensor], n: int) -> Tensor:
    if len(rows) != n or len({len(row) for row in rows}) != 1:
        raise MalformedError(f"it has {len(rows)} rows for {n} samples")
    return torch.stack(list(rows))


def _shaped(values: Tensor, n: int, *, labels: bool) -> Tensor:
    if labels and len(values) == n:
        return values
    if labels or len(values) % n or len(values) < 2 * n:
        raise MalformedError(f"it has {len(values)} values for {n} samples")
    return values.view(n, -1)


def numbers(values: object, kind: torch.dtype = torch.float32) -> Tensor:
    """Return nested lists as a tensor. Raises: MalformedError."""
    try:
        return torch.tensor(values, dtype=kind)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise MalformedError("its values are no numbers") from error


def member(document: Document, name: str, kind: type) -> Any:
    """Return a member of an object. Raises: MalformedError when it is missing or of another kind."""
    if not isinstance(document, dict) or name not in document or not isinstance(document[name], kind):
        raise MalformedError(f"it has no {name!r}")
    return document[name]


# requests -----------------------------------------------------------------------------------------------


def _json(document: Mapping[str, Any]) -> Message:
    return Message(json.dumps(document, separators=(",", ":")).encode())


def png(image: Tensor) -> bytes:
    """Encode an image (C, H, W) in [0, 1] with 8 bits a channel."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = pixels.permute(1, 2, 0).numpy() if len(pixels) == 3 else pixels[0].numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def _base64(image: Tensor) -> str:
    return base64.b64encode(png(image)).decode("ascii")
