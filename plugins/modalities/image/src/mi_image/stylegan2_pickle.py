"""Reading the pickles of the StyleGAN2-ADA PyTorch release without running any code of theirs.

Such a file is a dictionary of networks (``G``, ``D``, ``G_ema``...). Each network and each of its layers was stored
as a call of ``torch_utils.persistence._reconstruct_persistent_obj`` with one dictionary: the source text of its
module, the name of its class, and its state (``_parameters``, ``_buffers``, ``_modules``, plain attributes). The
release runs that text to build the class. Here every global that the pickle names is looked up in a short list of
stand-ins of this module, which keep plain data; a name that is not on the list ends the reading. Tensors are kept as
bytes until they are asked for, and are then read with ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from micore.errors import ModelError

__all__ = ["Layer", "read_generator"]

HINT = "give a file of the StyleGAN2-ADA PyTorch release, or a state dict (.safetensors or torch.save)"

MOST_LAYERS = 10_000
"""A released generator of 1024 px has less than a hundred."""

_DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, RuntimeError,
    ImportError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
"""What reading a truncated or hostile pickle may raise; RecursionError is a RuntimeError."""


@dataclass(frozen=True)
class Layer:
    """A network or layer as it was stored: the name of its class and its attributes."""

    class_name: str
    state: Mapping[str, Any]

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """Yield this layer, under the empty name, and all below it with their dotted names."""
        yield "", self
        for name, child in self._part("_modules").items():
            if isinstance(child, Layer):
                for below, layer in child.layers():
                    yield f"{name}.{below}".rstrip("."), layer

    def tensors(self) -> dict[str, Tensor]:
        """Return what ``state_dict()`` of the network would."""
        found = {}
        for name, layer in self.layers():
            for kind in ("_parameters", "_buffers"):
                for key, value in layer._part(kind).items():
                    if isinstance(value, _StoredTensor):
                        found[f"{name}.{key}".lstrip(".")] = value.read()
        return found

    def _part(self, name: str) -> Mapping[str, Any]:
        part = self.state.get(name)
        return part if isinstance(part, dict) else {}


def read_generator(path: Path) -> Layer:
    """Return the averaged generator ``G_ema`` of an official pickle.

    Raises: ModelError when the file is missing or damaged, names anything that such files do not need, or holds
    no ``G_ema``.
    """
    try:
        with path.open("rb") as stream:
            content = _Reader(stream).load()
        generator = content.get("G_ema") if isinstance(content, dict) else None
        if isinstance(generator, Layer):
            _require_tree(generator)
            return generator
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    except _RefusedError as error:
        raise ModelError(f"{path} {error}: refused, nothing was run", hint=HINT) from error
    except _DAMAGED as error:
        raise ModelError(f"{path} is truncated or no pickle of networks: {error}", hint=HINT) from error
    raise ModelError(f"{path} holds no network G_ema", hint=HINT)


def _require_tree(generator: Layer) -> None:
    """Refuse layers that hold each other, or so many that they must."""
    for count, _ in enumerate(generator.layers()):
        if count >= MOST_LAYERS:
            raise _RefusedError(f"holds more than {MOST_LAYERS:,} layers")


class _RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that is not on the list."""


class _Callable:
    """A stand-in for a global. Nothing that a pickle can do changes it: BUILD goes through ``__setstate__``."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise _RefusedError("tries to change the reader")


class _Ignored:
    """Stands for an array of NumPy, which no generator needs."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _NumberType:
    """Stands for ``numpy.dtype``: how the bytes of a scalar are read."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.order = ">"


_FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


def _scalar(kind: _NumberType, content: bytes) -> float | int | bool:
    """Read a NumPy scalar, such as a gain computed with ``numpy.sqrt``."""
    (value,) = struct.unpack(kind.order + _FORMATS[kind.code], content)
    number: float | int | bool = value
    return number


@dataclass(frozen=True)
class _Storage:
    """The bytes of a tensor's storage, as torch stored them inside the pickle."""

    content: bytes


@dataclass(frozen=True)
class _StoredTensor:
    """Where a tensor lies in its storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Return a copy.

        Raises: ModelError when the bytes hold something else.
        """
        try:
            storage = torch.load(io.BytesIO(self.storage.content), map_location="cpu", weights_only=True)
            if not isinstance(storage, torch.storage.TypedStorage):
                raise ModelError("a tensor of the pickle has no storage", hint=HINT)
            flat = torch.empty(0, dtype=storage.dtype).set_(storage)
            return torch.as_strided(flat, self.size, self.stride, self.offset).clone()
        except pickle.UnpicklingError as error:
            raise ModelError("a tensor of the pickle holds more than numbers: refused, nothing was run") from error
        except _DAMAGED as error:
            raise ModelError(f"a tensor of the pickle is damaged: {error}", hint=HINT) from error


def _layer(meta: Mapping[str, Any]) -> Layer:
    if meta["type"] != "class" or not isinstance(meta["state"], dict):
        raise ValueError("a persistent object that is no instance of a class")
    return Layer(str(meta["class_name"]), meta["state"])


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> _StoredTensor:
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without a storage")
    return _StoredTensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _stand_ins() -> dict[str, Any]:
    """Return the list, new for each file. Its types are immutable ones of Python itself."""
    array = _Callable(lambda *_: _Ignored())
    scalar, number_type = _Callable(_scalar), _Callable(lambda code, *_: _NumberType(code))
    return {
        "torch_utils.persistence._reconstruct_persistent_obj": _Callable(_layer),
        "dnnlib.util.EasyDict": OrderedDict,
        "collections.OrderedDict": OrderedDict,
        "builtins.set": set,
        "torch.storage._load_from_bytes": _Callable(_Storage),
        "torch._utils._rebuild_tensor_v2": _Callable(_tensor),
        "torch._utils._rebuild_parameter": _Callable(lambda tensor, *_: tensor),
        "torch.Size": tuple,
        "numpy.dtype": number_type,
        "numpy.ndarray": array,
        "numpy.core.multiarray.scalar": scalar,
        "numpy._core.multiarray.scalar": scalar,
        "numpy.core.multiarray._reconstruct": array,
        "numpy._core.multiarray._reconstruct": array,
    }


class _Reader(pickle.Unpickler):
    """An unpickler that knows nothing but the stand-ins."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._known = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a global."""
        known = self._known.get(f"{module}.{name}")
        if known is not None:
            return known
        if module.startswith("dnnlib.tflib"):
            raise _RefusedError("is a network of TensorFlow (the release's legacy.py turns it into one of PyTorch)")
        raise _RefusedError(f"asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to things outside the pickle."""
        raise _RefusedError("refers to something outside itself")
