"""Reading transformers checkpoints: networks and tokenizers from folders, never from the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import transformers
from transformers.utils import logging

from micore.errors import ModelError

Role = Literal["encoder", "classifier", "language-model", "masked-language-model"]
READERS = {
    "encoder": "AutoModel",
    "classifier": "AutoModelForSequenceClassification",
    "language-model": "AutoModelForCausalLM",
    "masked-language-model": "AutoModelForMaskedLM",
}
"""Which class of transformers reads the network of a role."""

CLASSIFIER_READERS = {"audio": "AutoModelForAudioClassification", "image": "AutoModelForImageClassification"}
"""Which class reads a classifier of a modality other than text."""

ENDINGS: Mapping[str, Role] = {
    "ForSequenceClassification": "classifier",
    "ForCausalLM": "language-model",
    "LMHeadModel": "language-model",
    "ForMaskedLM": "masked-language-model",
    "ForPreTraining": "masked-language-model",
    "Model": "encoder",
}
"""Roles by how the names of architectures end; the first that fits counts."""

TOKENIZERS = ("tokenizer.json", "vocab.*", "*.model")
"""Files of which a tokenizer has one at least."""

SAVE_IT = "save it into the same folder with its save_pretrained(FOLDER)"

UNUSED = ("pooler.",)
"""Parts of which an encoder's embedding does not depend; some checkpoints leave them out."""


def read_network(folder: Path, role: Role, *, trusted: bool = False, modality: str = "text") -> Any:
    """Return a checkpoint's network of a role, in float32 and with all its weights.

    trusted: pickled weights are read, too; modality: what it classifies, when it is a classifier.
    Raises: ModelError for an architecture that has no such role, weights that are missing, and pickled ones.
    """
    reader = getattr(transformers, CLASSIFIER_READERS.get(modality, READERS[role]))
    try:
        with _quiet():
            network, found = reader.from_pretrained(
                str(folder), local_files_only=True, dtype="float32", output_loading_info=True,
                use_safetensors=None if trusted else True,
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"{folder} cannot be read as {_a(role)}: {_first_line(error)}") from error
    missing = sorted(name for name in found["missing_keys"] if not (role == "encoder" and name.startswith(UNUSED)))
    if missing:
        raise ModelError(
            f"{folder} has no weights for {missing[0]} and {len(missing) - 1} others: it is {_a(role)} in name only",
            hint="-M role=..., or a checkpoint that was trained for this role",
        )
    return network


def read_config(folder: Path) -> Any:
    """Return a checkpoint's configuration.

    Raises: ModelError when there is none, or transformers does not know the architecture.
    """
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} is no checkpoint that transformers knows: {_first_line(error)}") from error
    if config.is_encoder_decoder:
        raise ModelError(f"{folder} is an encoder with a decoder ({config.model_type}), which is not supported")
    return config


def role_of(folder: Path, config: Any) -> Role:
    """Return the role that a checkpoint's architecture has.

    Raises: ModelError when it names none that is known.
    """
    names = config.architectures or ["none"]
    for ending, role in ENDINGS.items():
        if names[0].endswith(ending):
            return role
    raise ModelError(
        f"{folder} is of an architecture that is not supported: {names[0]}", hint="-M role=" + "|".join(READERS)
    )


def read_tokenizer(folder: Path) -> Any:
    """Return a checkpoint's tokenizer, as transformers has it.

    Raises: ModelError when there is none, or one that `tokenizers` does not know.
    """
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):  # transformers would make an empty one
        raise ModelError(f"{folder} has no tokenizer", hint=SAVE_IT)
    try:
        with _quiet():
            found = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder} has no tokenizer that can be read: {_first_line(error)}", hint=SAVE_IT) from error
    if getattr(found, "backend_tokenizer", None) is None:
        raise ModelError(f"{folder} has a tokenizer that is written in Python", hint="save a fast one (tokenizer.json)")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting to the terminal; what matters is raised."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _a(role: str) -> str:
    return f"an {role}" if role == "encoder" else f"a {role}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
