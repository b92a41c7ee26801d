"""From a checkpoint's folder or name to a target: the scheme ``hf``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from mi_model_transformers.audio import AudioClassifier, audio_input, audio_settings_file, is_audio, read_front
from mi_model_transformers.checkpoints import Role, read_config, read_network, read_tokenizer, role_of
from mi_model_transformers.classifier import SequenceClassifier, class_order
from mi_model_transformers.encoder import Pooling, SentenceEncoder
from mi_model_transformers.folders import digest_of, folder_of, weight_files
from mi_model_transformers.image import ImageClassifier, image_input, image_settings_file, is_image
from mi_model_transformers.language_model import CausalTransformer
from mi_model_transformers.marks import bare_input, end_ids_of, longest_of, marked_input
from mi_model_transformers.masked_model import MaskedTransformer
from micore.artifacts import Card, PluginUse
from micore.configs import make_config
from micore.contracts import Config
from micore.errors import ConfigError, ModelError
from micore.external import External, SourceRequest
from micore.files import digest
from micore.inputs import InputSpec
from micore.versions import versions

TEXT, AUDIO, IMAGE = "text", "audio", "image"
TAKEN = {TEXT: "texts", AUDIO: "waveforms", IMAGE: "images"}
OPTIONS = {TEXT: ("pooling", "max_tokens"), AUDIO: ("seconds",), IMAGE: ()}
"""The options of each modality alone."""

PLAIN_PARTS = {"Transformer", "Pooling", "Normalize"}
"""Parts of a sentence-transformers model that are carried out here."""


class CheckpointConfig(Config):
    """Options of a transformers checkpoint."""

    role: Role | None = Field(None, description="what it is; none: by the architecture that its config names")
    pooling: Pooling | None = Field(
        None,
        description="of an encoder's states: mean or cls (the first); none: as sentence-transformers saved, or mean",
    )
    max_tokens: int | None = Field(None, ge=1, description="of a text; none: 128, or what it takes if that is less")
    seconds: float | None = Field(None, gt=0, le=600, description="of a clip of audio; none: as in the data set, or 1")
    labels: Literal["name", "number"] = Field("name", description="what the data set's classes are found by")
    trust: bool = Field(False, description="read pickled weights although they can run code; only those that you made")


def load(request: SourceRequest) -> External:
    """Open a checkpoint as a network in memory: all access can be granted. Nothing is downloaded.

    Raises: ConfigError; ModelError when there is no such checkpoint, it is of another kind, or the data do not fit.
    """
    config = make_config(CheckpointConfig, request.options, f"the target {request.uri}")
    folder = folder_of(request.place)
    files = weight_files(folder, trusted=config.trust)
    about = read_config(folder)
    modality = _modality(about)
    if request.dataset is not None and request.dataset.modality != modality:
        raise ModelError(f"{request.uri} takes {TAKEN[modality]}; the data are of modality {request.dataset.modality}")
    _check_options(config, modality, request.uri)
    role = config.role or (role_of(folder, about) if modality == TEXT else "classifier")
    classes = _classes(request, about, role)
    settings: list[Path] = []
    if modality == AUDIO:
        module, spec = _audio_module(folder, about, classes, config, request)
        settings = [audio_settings_file(folder)]
    elif modality == IMAGE:
        module, spec = _image_module(folder, about, classes, config)
        settings = [image_settings_file(folder)]
    else:
        module, spec = _module(folder, about, role, classes, config)
    _try_out(module, spec, modality, request.uri)
    return External(
        card=Card(
            role=role, modality=modality, model=PluginUse(name="hf", config=dict(request.options)), input=spec,
            classes=tuple(classes), data={}, versions=versions(),
        ),
        fingerprint=digest(
            "hf", role, digest_of([folder / "config.json", *settings, *files]), spec.to_dict(),
            config.model_dump(exclude={"trust", "seconds"}),
        ),
        module=module,
    )  # fmt: skip


def _modality(about: Any) -> str:
    if is_audio(about):
        return AUDIO
    return IMAGE if is_image(about) else TEXT


def _check_options(config: CheckpointConfig, modality: str, uri: str) -> None:
    """Refuse options of other modalities.

    Raises: ConfigError.
    """
    others = [name for known, names in OPTIONS.items() if known != modality for name in names]
    given = [name for name in others if getattr(config, name) is not None]
    if modality != TEXT and config.role not in (None, "classifier"):
        given.append("role")
    if given:
        raise ConfigError(f"{uri} takes {TAKEN[modality]}: {given[0]} does not fit", hint="leave it out")


def _audio_module(
    folder: Path, about: Any, classes: Sequence[str], config: CheckpointConfig, request: SourceRequest
) -> tuple[nn.Module, InputSpec]:
    """Return a classifier of audio, and its input."""
    front, rate = read_front(folder)
    spec = audio_input(rate, request.dataset, config.seconds)
    order = class_order(_own_classes(about), classes, by_number=config.labels == "number")
    network = read_network(folder, "classifier", trusted=config.trust, modality=AUDIO)
    return AudioClassifier(network, front, spec, order), spec


def _image_module(
    folder: Path, about: Any, classes: Sequence[str], config: CheckpointConfig
) -> tuple[nn.Module, InputSpec]:
    """Return a classifier of images, and its input."""
    spec = image_input(folder, about)
    order = class_order(_own_classes(about), classes, by_number=config.labels == "number")
    network = read_network(folder, "classifier", trusted=config.trust, modality=IMAGE)
    return ImageClassifier(network, spec, order), spec


def _module(
    folder: Path, about: Any, role: Role, classes: Sequence[str], config: CheckpointConfig
) -> tuple[nn.Module, InputSpec]:
    """Return the network of a role, and its input."""
    tokenizer = read_tokenizer(folder)
    if len(tokenizer) > about.vocab_size:
        raise ModelError(
            f"{folder} has a tokenizer of {len(tokenizer)} tokens and a network of {about.vocab_size}",
            hint="save the tokenizer that the network was trained with",
        )
    describe = bare_input if role == "language-model" else marked_input
    spec = describe(tokenizer, about, config.max_tokens)
    if role == "encoder":
        pooling = config.pooling or _saved_pooling(folder)
        return SentenceEncoder(read_network(folder, role, trusted=config.trust), spec, pooling), spec
    if role == "classifier":
        order = class_order(_own_classes(about), classes, by_number=config.labels == "number")
        return SequenceClassifier(read_network(folder, role, trusted=config.trust), spec, order), spec
    network = read_network(folder, role, trusted=config.trust)
    if role == "masked-language-model":
        return MaskedTransformer(network, spec), spec
    ends = end_ids_of(tokenizer, network.generation_config)
    begin = ends[0] if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
    longest = longest_of(tokenizer, about)
    return CausalTransformer(network, spec, begin_id=begin, end_ids=ends, longest=longest), spec


def _classes(request: SourceRequest, about: Any, role: Role) -> Sequence[str]:
    if request.dataset is not None:
        return request.dataset.classes
    return _own_classes(about) if role == "classifier" else ()


def _own_classes(about: Any) -> list[str]:
    """Return the names of a classifier's classes, by label.

    Raises: ModelError for a network that is no classifier of one class out of several.
    """
    if about.num_labels < 2 or about.problem_type in ("regression", "multi_label_classification"):
        raise ModelError("the checkpoint does not choose one class out of several", hint="another -M role=")
    return [str(about.id2label[label]) for label in range(about.num_labels)]


def _saved_pooling(folder: Path) -> Pooling:
    """Return how sentence-transformers pools, where its files lie beside the checkpoint.

    Raises: ModelError for a way, or a further part, that is not there here.
    """
    parts = [str(part.get("type", "")).rpartition(".")[2] for part in _json(folder / "modules.json", [])]
    other = [part for part in parts if part not in PLAIN_PARTS]
    saved = _json(folder / "1_Pooling" / "config.json", {})
    ways = [name.removeprefix("pooling_mode_") for name, on in saved.items() if name.startswith("pooling_mode_") and on]
    ways += [str(saved["pooling_mode"])] if "pooling_mode" in saved else []
    known: dict[str, Pooling] = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean"}
    if other or len(ways) > 1 or any(way not in known for way in ways):
        raise ModelError(
            f"{folder} pools by {', '.join([*other, *ways])}, which is not supported",
            hint="-M pooling=mean or cls takes the transformer alone",
        )
    return known[ways[0]] if ways else "mean"


def _json(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise


@torch.no_grad()
def _try_out(module: nn.Module, spec: InputSpec, modality: str, uri: str) -> None:
    """Check on one text of full length, silence or one image that it fits; this is no query of the adversary's."""
    inputs = torch.zeros(1, *spec.shape, dtype=torch.int64 if modality == TEXT else torch.float32)
    if modality == TEXT:
        inputs[0, -1] = int(spec.options["pad_id"] == 0)  # no padding at the end
    try:
        module.eval()(inputs)
    except (IndexError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        size, hint = {
            TEXT: (f"{spec.shape[0]} tokens", "-M max_tokens=..."),
            AUDIO: (f"{spec.shape[0]} samples", "-M seconds=..."),
            IMAGE: (f"shape {list(spec.shape)}", "see the image processor's settings beside the checkpoint"),
        }[modality]
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"{uri} does not take {TAKEN[modality]} of {size}: {reason}", hint=hint) from error
