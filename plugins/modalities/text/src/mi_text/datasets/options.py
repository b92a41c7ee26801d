"""The options that all data sets of texts have, and counts as an option."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from micore.kit.dataset_options import DatasetOptions


class TextOptions(DatasetOptions):
    """Options of all data sets of texts."""

    vocabulary: int = Field(2048, ge=300, le=65_536, description="Tokens of the tokenizer that is made for the data")
    max_tokens: int = Field(64, ge=4, le=4096, description="Tokens of a text that a model reads; the rest is cut off")
    seed: int = Field(0, description="Seed of what is drawn")


LARGEST_COUNT = 10_000


def read_counts(text: str) -> tuple[int, ...]:
    """Read ``1,2,4``.

    Raises: ValueError when a part is no number from 1 to `LARGEST_COUNT`, or stands there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) < 9 and 1 <= int(part) <= LARGEST_COUNT):
            raise ValueError(f"{part!r} is no number from 1 to {LARGEST_COUNT}; write such as 1,2,4")
    counts = tuple(int(part) for part in parts)
    if len(set(counts)) < len(counts):
        raise ValueError("a number stands there twice")
    return counts


def _require_counts(text: str) -> str:
    read_counts(text)
    return text


Counts = Annotated[str, AfterValidator(_require_counts)]
"""Numbers between commas, as `read_counts` takes them."""
