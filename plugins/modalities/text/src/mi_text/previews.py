"""Texts that a person can read: files, and fragments of a report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from micore.files import atomic_path, safe_name


def export_texts(samples: Mapping[str, Sequence[str]], directory: Path) -> list[Path]:
    """Write one UTF-8 file per key with all its texts, one in a line; keys without texts get none.

    Raises: StorageError.
    """
    return [_write(texts, directory / f"{safe_name(key)}.txt") for key, texts in samples.items() if len(texts)]


def _write(texts: Sequence[str], path: Path) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{one_line(text)}\n" for text in texts), encoding="utf-8")
    return path


def one_line(text: str) -> str:
    """Return a text in one line: line breaks and backslashes are escaped."""
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def fragment(texts: Sequence[str], limit: int) -> str:
    """Return an HTML list of up to ``limit`` texts."""
    items = "".join(f"<li>{html.escape(one_line(text))}</li>" for text in texts[: max(limit, 0)])
    return f'<ol class="mi-texts">{items}</ol>'


def compared(truth: str, texts: Sequence[str], limit: int) -> str:
    """Return an HTML list of up to ``limit`` texts; words that the truth has in this order are marked."""
    items = "".join(f"<li>{_marked(truth, text)}</li>" for text in texts[: max(limit, 0)])
    return f'<ol class="mi-texts">{items}</ol>'


def _marked(truth: str, text: str) -> str:
    known, words = one_line(truth).split(" "), one_line(text).split(" ")
    blocks = SequenceMatcher(None, known, words, autojunk=False).get_matching_blocks()
    right = {place for _, start, size in blocks for place in range(start, start + size)}
    marked = (html.escape(word) for word in words)
    return " ".join(f"<mark>{word}</mark>" if place in right else word for place, word in enumerate(marked))
