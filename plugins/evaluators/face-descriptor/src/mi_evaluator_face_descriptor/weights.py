"""Read the published weights of the face descriptor into a state dict.

The npm package ``@vladmandic/face-api`` carries them in the TensorFlow.js format: a JSON manifest
with names, shapes and quantisation, and a file with the tensors one after another. A quantised
tensor holds one byte per value, ``value = byte * scale + min``; the others are little-endian float32.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_evaluator_face_descriptor.network import FaceDescriptor
from micore.errors import ModelError

WEIGHTS_FILE = "face_recognition_model.bin"
MANIFEST_SUFFIX = "-weights_manifest.json"
MANIFEST_FILE = "face_recognition_model" + MANIFEST_SUFFIX

WEIGHTS_SHA256 = "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
"""Of ``model/face_recognition_model.bin`` in ``@vladmandic/face-api`` 1.7.15."""

HOW_TO_GET = "run `npm pack @vladmandic/face-api@1.7.15`, unpack it, and give its folder `package/model`"
_LEAVES = {"filters": "weight", "weights": "weight", "bias": "bias", "biases": "bias"}


def load_network(path: str | Path, device: torch.device | str = "cpu") -> FaceDescriptor:
    """Build the network with the weights at ``path`` (see `read_weights`), frozen, in ``eval()``.

    Raises `ModelError` if the file cannot be read or does not fit the network.
    """
    state = read_weights(path)
    network = FaceDescriptor()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit the face descriptor: {error}", hint=HOW_TO_GET) from error
    return network.requires_grad_(False).eval().to(device)


def read_weights(path: str | Path, sha256: str | None = WEIGHTS_SHA256) -> dict[str, Tensor]:
    """Read a state dict of `FaceDescriptor` in float32.

    ``path``: the unpacked npm package or its folder ``model``, the ``.bin`` or its manifest (one
    beside the other), or a ``.safetensors`` file with the state dict itself. The ``.bin`` must have
    the digest ``sha256``; None skips that. Raises `ModelError`.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    manifest_path = _find_manifest(path)
    paths, entries = _read_manifest(manifest_path)
    blob = b"".join(_read_bytes(manifest_path.parent / name) for name in paths)
    _check_digest(blob, sha256, manifest_path)
    return to_state_dict(dequantise(entries, blob))


def dequantise(entries: list[dict[str, Any]], blob: bytes) -> dict[str, np.ndarray]:
    """Cut ``blob`` into the tensors that the manifest's ``entries`` describe, as float32 arrays.

    Raises `ModelError` if an entry is malformed or the sizes do not add up to that of ``blob``.
    """
    tensors: dict[str, np.ndarray] = {}
    offset = 0
    for entry in entries:
        name, shape, dtype, scale, minimum = _parse_entry(entry)
        end = offset + math.prod(shape) * dtype.itemsize
        if end > len(blob):
            raise ModelError(f"weights end inside tensor {name!r}: {len(blob)} bytes", hint=HOW_TO_GET)
        values = np.frombuffer(blob[offset:end], dtype).astype(np.float64) * scale + minimum
        tensors[name] = values.astype(np.float32).reshape(shape)
        offset = end
    if offset != len(blob):
        raise ModelError(f"weights have {len(blob)} bytes, the manifest describes {offset}", hint=HOW_TO_GET)
    return tensors


def to_state_dict(tensors: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Rename the published tensors and change their layout (HWIO, in x out) to torch's."""
    return {_torch_name(name): torch.from_numpy(_torch_layout(array)) for name, array in tensors.items()}


def fingerprint(network: FaceDescriptor) -> str:
    """Return the sha256 of the weights' values, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _torch_name(name: str) -> str:
    if name == "fc":
        return "fc.weight"
    *modules, leaf = name.split("/")
    # Every block but the stem, whose convolution stands alone, sits in `blocks`.
    in_block = len(modules) == 3
    return ".".join([*(["blocks"] if in_block else []), *modules, _LEAVES.get(leaf, leaf)])


def _torch_layout(array: np.ndarray) -> np.ndarray:
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, tuple(range(array.ndim)))
    return np.ascontiguousarray(array.transpose(axes))


def _parse_entry(entry: dict[str, Any]) -> tuple[str, list[int], np.dtype, float, float]:
    """Return name, shape, stored type, scale and minimum of one tensor."""
    try:
        name, shape, dtype = entry["name"], [int(size) for size in entry["shape"]], entry["dtype"]
        quantisation = entry.get("quantization") or {"dtype": "float32", "scale": 1.0, "min": 0.0}
        stored = {"uint8": "u1", "float32": "<f4"}[quantisation["dtype"]]
        scale, minimum = float(quantisation["scale"]), float(quantisation["min"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"weights manifest: cannot read entry {entry!r}", hint=HOW_TO_GET) from error
    if dtype != "float32" or any(size < 0 for size in shape):
        raise ModelError(f"weights manifest: {name!r} has type {dtype}, shape {shape}", hint=HOW_TO_GET)
    return name, shape, np.dtype(stored), scale, minimum


def _find_manifest(path: Path) -> Path:
    if path.is_dir():
        candidates = [path / MANIFEST_FILE, path / "model" / MANIFEST_FILE]
    elif path.name.endswith(MANIFEST_SUFFIX):
        candidates = [path]
    else:
        candidates = [path.with_name(path.stem + MANIFEST_SUFFIX)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise ModelError(f"no manifest of the face descriptor's weights at {tried}", hint=HOW_TO_GET)


def _read_manifest(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of the weight files, which lie beside the manifest, and the tensor entries."""
    try:
        groups = json.loads(_read_bytes(path))
        paths = [name for group in groups for name in group["paths"]]
        entries = [entry for group in groups for entry in group["weights"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a weights manifest: {error!r}", hint=HOW_TO_GET) from error
    # A manifest is data from elsewhere: it may not point out of its folder.
    outside = [name for name in paths if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise ModelError(f"{path} names files outside its folder: {outside}", hint=HOW_TO_GET)
    return paths, entries


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", hint=HOW_TO_GET) from error


def _check_digest(blob: bytes, sha256: str | None, manifest: Path) -> None:
    found = hashlib.sha256(blob).hexdigest()
    if sha256 is not None and found != sha256:
        raise ModelError(
            f"the weights beside {manifest} have sha256 {found}, expected {sha256} ({len(blob)} bytes)",
            hint=HOW_TO_GET,
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return {name: tensor.float() for name, tensor in load(_read_bytes(path)).items()}
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file: {error}", hint=HOW_TO_GET) from error
