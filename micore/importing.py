"""``mi import``: from the weights of a user's own model to a bundle."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from micore.artifacts import PICKLES, Bundle, Card, PluginUse
from micore.data import DataRequest, describe
from micore.errors import ModelError
from micore.models import load_modality, restore_network
from micore.registry import Registry
from micore.runtime import Runtime
from micore.training import target_role
from micore.utility import measure
from micore.versions import versions

WRAPPERS = ("state_dict", "model_state_dict", "model")


def import_weights(
    registry: Registry,
    path: Path,
    *,
    model: PluginUse,
    data: DataRequest,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    trust_pickle: bool = False,
) -> Bundle:
    """Read a state dict and check it against an architecture and the data that it was trained on.

    mean, std: the normalisation of the model's input; None keeps the data set's.

    Raises: ModelError when the file cannot be read safely or does not fit.
    """
    dataset = data.open(registry)
    spec = dataset.input
    spec = replace(spec, mean=spec.mean if mean is None else mean, std=spec.std if std is None else std)
    card = Card(
        role=target_role(registry, model), modality=dataset.modality, model=model, input=spec, classes=dataset.classes,
        data=describe(data, dataset), training={"imported": path.name}, versions=versions(),
    )  # fmt: skip
    bundle = Bundle(card=card, weights=read_weights(path, trust_pickle=trust_pickle), source=str(path))
    module, _ = restore_network(registry, bundle)
    runtime = Runtime.create("cpu")
    adapter = load_modality(registry, dataset.modality).adapter(spec)
    metrics = measure(module, adapter, dataset, dataset.split("private"), runtime)
    return replace(bundle, card=replace(card, metrics=metrics))


def read_weights(path: Path, *, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Read a state dict from safetensors or, without running code, from a file of ``torch.save``.

    Raises: ModelError; a pickle that holds more than tensors needs ``trust_pickle``.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist")
    try:
        content = _read_pickle(path, trust_pickle) if path.suffix in PICKLES else load_file(path)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return _state_dict(path, content)


def _read_pickle(path: Path, trusted: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors; reading it could run code",
            hint="if you trust where it comes from: --trust-pickle",
        ) from error


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """Unwrap the usual nestings and drop the prefix that data-parallel training leaves."""
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    while (inner := _wrapped(content)) is not None:
        content = inner
    if not isinstance(content, dict) or not content or not all(isinstance(item, Tensor) for item in content.values()):
        raise ModelError(f"{path} holds no state dict (names and tensors)")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _wrapped(content: Any) -> dict[str, Any] | None:
    """Return what a training script put under one of the usual names."""
    if not isinstance(content, dict):
        return None
    return next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), None)
