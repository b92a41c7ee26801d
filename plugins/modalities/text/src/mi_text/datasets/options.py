"""Reading the options of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from micore.contracts import Config
from micore.errors import DataError


class DatasetOptions(Config):
    """Base of the options; ``data_root``, a place of this machine, is no part of the data's identity."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    data_root: Path | None = Field(None, exclude=True, description="Directory of the data sets of this machine")
    vocabulary: int = Field(2048, ge=300, le=65_536, description="Tokens of the tokenizer that is made for the data")
    max_tokens: int = Field(64, ge=4, le=4096, description="Tokens of a text that a model reads; the rest is cut off")
    seed: int = Field(0, description="Seed of what is drawn")


Options = TypeVar("Options", bound=DatasetOptions)

PathText = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
"""A path as an option: text, so that it can be stored as JSON."""

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


def read_options(model: type[Options], dataset: str, options: Mapping[str, Any]) -> Options:
    """Validate options.

    Raises: DataError that names each option at fault, with close matches of an unknown one.
    """
    try:
        return model(**options)
    except ValidationError as error:
        problems = [_problem(model, str(detail["loc"][0]), detail) for detail in error.errors()]
        known = ", ".join(name for name in model.model_fields if name != "data_root")
        raise DataError(f"{dataset}: " + "; ".join(problems), hint=f"options: {known}") from error


def _problem(model: type[DatasetOptions], name: str, detail: Mapping[str, Any]) -> str:
    if detail["type"] != "extra_forbidden":
        return f"option {name}={detail['input']!r}: {detail['msg']}"
    close = get_close_matches(name, model.model_fields, n=3)
    return f"unknown option {name!r}" + (f", did you mean {', '.join(close)}?" if close else "")


def refuse_location(dataset: str, location: str | None) -> None:
    """Raise DataError when a data set that has no place of its own is given one."""
    if location is not None:
        raise DataError(f"{dataset} takes no location, but {location!r} was given", hint=f"write {dataset} alone")
