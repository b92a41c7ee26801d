"""What a page of the documentation holds: code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's code blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of every ``mi`` command of a page, in order; a line may hold several."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\s{2,}(?=mi )", line)]
    return [shlex.split(part)[1:] for part in parts if part.startswith("mi ")]
