"""Files as arrays, which travel between machines whole; and texts that name places, moved along."""

from __future__ import annotations

import html
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from micore.errors import StorageError
from micore.files import atomic_path

Content = NDArray[np.uint8]
Parcel = dict[str, Content]
"""Contents by their path below where they were packed, with ``/``; "." for a single file."""

ESCAPES: Mapping[str, Callable[[str], str]] = {
    ".json": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    ".jsonl": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    ".html": html.escape,
    ".md": str,
    ".log": str,
    ".txt": str,
}
"""How the texts of a run write a path."""


def pack(path: Path) -> Parcel:
    """Read a file, or a folder with all below it; what is not there is an empty parcel."""
    if path.is_file():
        return {".": np.fromfile(path, dtype=np.uint8)}
    return {name: np.fromfile(path / name, dtype=np.uint8) for name in files_below(path)}


def files_below(folder: Path) -> Iterator[str]:
    """Give the path of each file that was finished, with ``/``."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".part":
            yield path.relative_to(folder).as_posix()


def unpack(parcel: Parcel, path: Path) -> None:
    """Put a file or folder into its place, which it takes whole or not at all.

    Raises: StorageError.
    """
    if not parcel:
        return
    if "." in parcel:
        write(parcel["."], path)
        return
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        for name, content in parcel.items():
            write(content, beside / name)
        shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="choose another -o") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write(content: Content, path: Path) -> None:
    """Write a file atomically.

    Raises: StorageError.
    """
    with atomic_path(path) as temporary:
        content.tofile(temporary)


def moved(parcel: Parcel, old: Path, new: Path) -> Parcel:
    """Return a parcel whose texts name the new place for the old one; the old must be like nothing else in them."""
    return {name: _moved(name, content, str(old), str(new)) for name, content in parcel.items()}


def _moved(name: str, content: Content, old: str, new: str) -> Content:
    escape = ESCAPES.get(Path(name).suffix)
    if escape is None:
        return content
    text = content.tobytes().replace(escape(old).encode(), escape(new).encode())
    return np.frombuffer(text, dtype=np.uint8)


def moved_manifest(parcel: Parcel, old: Path, new: Path) -> Parcel:
    """Return the parcel of a begun run whose manifest names the new place, in values that are paths below the old."""
    if "run.json" not in parcel:
        return parcel
    mark = ESCAPES[".json"]
    before, after = f'"{mark(str(old))}{os.sep}', f'"{mark(str(new))}{os.sep}'
    text = parcel["run.json"].tobytes().replace(before.encode(), after.encode())
    return {**parcel, "run.json": np.frombuffer(text, dtype=np.uint8)}


def relocated(arguments: Sequence[str], old: Path, new: Path) -> list[str]:
    """Return arguments of which the paths below the old place lie below the new one."""
    return [str(new / Path(text).relative_to(old)) if text.startswith(f"{old}{os.sep}") else text for text in arguments]
