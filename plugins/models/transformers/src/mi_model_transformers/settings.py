"""What a checkpoint's folder says of how its inputs are made: settings of a feature extractor or an image processor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micore.errors import ModelError

FILES = ("preprocessor_config.json", "processor_config.json")


def settings_file(folder: Path, takes: str, part: str) -> Path:
    """Return the file with the settings; takes: what the network takes, part: what makes its inputs, in words.

    Raises: ModelError when there is none.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder} has no {FILES[0]}: how it takes {takes} is not known", hint=save_it(part))


def read_settings(path: Path, key: str, part: str) -> Mapping[str, Any]:
    """Return the settings in a file, which may hold them under a key beside those of others.

    Raises: ModelError when it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        inner: Mapping[str, Any] = found.get(key, found)
        return dict(inner)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=save_it(part)) from error


def save_it(part: str) -> str:
    """Say how a user comes to such a file."""
    return f"save its {part} into the same folder with save_pretrained(FOLDER)"
