"""Writing files whole or not at all, and telling contents apart by hash."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from micore.errors import RunError, StorageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends well.

    Raises: StorageError when there is no space or no permission; then ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    made: list[Path] = []
    try:
        made = [parent for parent in path.absolute().parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        made = []
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", hint=_storage_hint(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _remove_empty(made)


def _remove_empty(directories: Iterable[Path]) -> None:
    """Remove directories, innermost first, up to the first in which there is something."""
    with suppress(OSError):
        for directory in directories:
            directory.rmdir()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space or choose another place; nothing was half-written"
    return "choose a place that can be written; nothing was half-written"


def require_writable(path: Path) -> None:
    """Check before long work that a file can be written later; nothing is made.

    Raises: StorageError.
    """
    existing = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    if not existing.is_dir():
        raise StorageError(f"cannot write {path}: {existing} is not a directory", hint="choose another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError(
            f"cannot write {path}: {existing} is not writable", hint="choose a place that can be written"
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises: StorageError.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically, with sorted structure left as given.

    Raises: StorageError.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises: RunError when it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}") from error


def digest(*parts: Any) -> str:
    """Hash JSON values and bytes to 64 hex digits; equal values give equal digests."""
    state = hashlib.sha256()
    for part in parts:
        block = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        state.update(len(block).to_bytes(8, "big"))
        state.update(block)
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def safe_name(text: str) -> str:
    """Turn a name from outside into one that is safe as a file name, and keeps names apart."""
    plain = (char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in text)
    kept = "".join(plain).strip("-")[:60]
    return kept if kept and kept == text else f"{kept or 'name'}-{digest(text)[:8]}"
