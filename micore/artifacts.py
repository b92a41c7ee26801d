"""Files that hold tensors: model bundles, prepared attacks, checkpoints, reconstructions.

All are .safetensors with one JSON document in the header, so each describes itself, none can run
code, and a file is either whole or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from micore.errors import MiError, ModelError, RunError
from micore.files import atomic_path, digest
from micore.inputs import InputSpec

DOCUMENT = "micore"
BUNDLE_SCHEMA = "micore.bundle/1"
STATE_SCHEMA = "micore.state/1"
DEFENSE_PREFIX = "defense/"
PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document atomically.

    Raises: StorageError.
    """
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = save(stored, metadata={DOCUMENT: json.dumps(document)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: Path, schema: str, error: type[MiError] = RunError) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and their JSON document.

    Raises: ``error`` when the file is missing, truncated, or not of this schema.
    """
    if not path.is_file():
        raise error(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        content = path.read_bytes()
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
    except (SafetensorError, ValueError, OSError) as problem:
        raise error(f"{path} is truncated or no safetensors file: {problem}") from problem
    return tensors, _document(path, header, schema, error)


def _document(path: Path, header: Mapping[str, Any], schema: str, error: type[MiError]) -> dict[str, Any]:
    text = header.get("__metadata__", {}).get(DOCUMENT)
    if text is None:
        raise error(f"{path} was not written by micore", hint="`mi train` makes bundles, `mi import` converts weights")
    try:
        document = json.loads(text)
    except ValueError as problem:
        raise error(f"{path} is damaged: its description is no JSON") from problem
    if not isinstance(document, dict):
        raise error(f"{path} is damaged: its description is no JSON object")
    if document.get("schema") != schema:
        raise error(f"{path} holds {document.get('schema')!r}, not {schema!r}")
    return document


# States: nested dicts and lists of tensors and JSON values -----------------------------------------


def save_state(path: Path, state: Mapping[str, Any], document: Mapping[str, Any] | None = None) -> None:
    """Write a nested state, with further JSON values beside it, atomically.

    Raises: StorageError.
    """
    tensors: dict[str, Tensor] = {}
    outline = _outline(state, "", tensors)
    write_tensors(path, tensors, {"schema": STATE_SCHEMA, "outline": outline, "document": dict(document or {})})


def load_state(path: Path, error: type[MiError] = RunError) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a nested state and its document.

    Raises: ``error`` when the file is missing, damaged or holds something else.
    """
    tensors, stored = read_tensors(path, STATE_SCHEMA, error)
    return _fill(stored["outline"], tensors), stored["document"]


def _outline(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move tensors out of a nested value and leave references in their places."""
    if isinstance(value, Tensor):
        key = f"{len(tensors)}{name}"  # the number keeps apart what slashes in names would mix up
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, Mapping):
        items = [[key, _outline(item, f"{name}/{key}", tensors)] for key, item in value.items()]
        return {"items": items}
    if isinstance(value, (list, tuple)):
        return [_outline(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a state holds tensors and JSON values, not {type(value).__name__} (at {name or '/'})")


def _fill(outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(outline, list):
        return [_fill(item, tensors) for item in outline]
    if not isinstance(outline, dict):
        return outline
    if "tensor" in outline:
        return tensors[outline["tensor"]]
    return {key: _fill(item, tensors) for key, item in outline["items"]}


# Bundles -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginUse:
    """A plugin as it was used: its name and its arguments or config."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a bundle says about itself.

    role: classifier, evaluator...; model: architecture and its arguments; classes: their names, by
    label; data: name, location, options and fingerprint of the data set; defenses: in order.
    """

    role: str
    modality: str
    model: PluginUse
    input: InputSpec
    classes: tuple[str, ...]
    data: Mapping[str, Any]
    defenses: tuple[PluginUse, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"schema": BUNDLE_SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """Read the JSON form.

        Raises: ModelError when something is missing or malformed.
        """
        values = {key: value for key, value in data.items() if key != "schema"}
        try:
            values["model"] = PluginUse(**values["model"])
            values["defenses"] = tuple(PluginUse(**use) for use in values["defenses"])
            values["input"] = InputSpec.from_dict(values["input"])
            values["classes"] = tuple(values["classes"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ModelError(f"the bundle's card is malformed: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A trained model as one file: weights and card. ``source`` is the path or URI it came from.

    defense_state: what defenses hold besides the network's weights, by defense: no adversary sees it.
    """

    card: Card
    weights: Mapping[str, Tensor]
    source: str = ""
    defense_state: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, defenses and weights: equal models have equal fingerprints."""
        card = self.card.to_dict()
        identity = {key: card[key] for key in ("model", "input", "classes", "defenses")}
        tensors = self._tensors()
        content = [part for name in sorted(tensors) for part in (name, _tensor_bytes(tensors[name]))]
        return digest(identity, *content)

    def save(self, path: Path) -> None:
        """Write the bundle atomically.

        Raises: StorageError.
        """
        write_tensors(path, self._tensors(), self.card.to_dict())

    def _tensors(self) -> dict[str, Tensor]:
        """Return all tensors by their names in the file; names of weights have no slash."""
        kept = {
            f"{DEFENSE_PREFIX}{use}/{name}": tensor
            for use, tensors in self.defense_state.items()
            for name, tensor in tensors.items()
        }
        return {**self.weights, **kept}

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle.

        Raises: ModelError that says what is wrong with the file.
        """
        if path.suffix.lower() in PICKLES and path.is_file():
            raise ModelError(
                f"{path} looks like a pickle, which can run code when it is read",
                hint="`mi import` converts its weights to a bundle without running any",
            )
        tensors, document = read_tensors(path, BUNDLE_SCHEMA, ModelError)
        weights, kept = _divided(tensors)
        return cls(card=Card.from_dict(document), weights=weights, source=str(path), defense_state=kept)


def _divided(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Tell the weights from what defenses hold."""
    weights: dict[str, Tensor] = {}
    kept: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        use, separator, name = key.removeprefix(DEFENSE_PREFIX).partition("/")
        if key.startswith(DEFENSE_PREFIX) and separator:
            kept.setdefault(use, {})[name] = tensor
        else:
            weights[key] = tensor
    return weights, kept


def _tensor_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
