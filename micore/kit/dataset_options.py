"""Reading the options of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from micore.contracts import Config
from micore.errors import DataError
from micore.kit.choice import read_choice


class DatasetOptions(Config):
    """Base of the options; ``data_root``, a place of this machine, is no part of the data's identity."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    data_root: Path | None = Field(None, exclude=True, description="Directory of the data sets of this machine")


Options = TypeVar("Options", bound=DatasetOptions)

PathText = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
"""A path as an option: text, so that it can be stored as JSON."""


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


def find_place(options: DatasetOptions, location: str) -> Path:
    """Return the path of a location; a relative one is looked for here, then below the data root.

    The path need not exist: whoever reads it says what is wrong.
    """
    path, root = Path(location).expanduser(), _data_root(options)
    if path.is_absolute() or root is None or path.exists():
        return path
    return root / path if (root / path).parent.is_dir() else path


def _data_root(options: DatasetOptions) -> Path | None:
    root = options.data_root or os.environ.get("MI_DATA_ROOT")
    return Path(root).expanduser() if root else None


def require_file(dataset: str, options: DatasetOptions, path: str) -> Path:
    """Return a file under the data root.

    Raises: DataError when there is no data root or no such file in it.
    """
    root = _data_root(options)
    if root is None:
        raise DataError(f"{dataset} needs files of your own", hint="--data-root DIR or MI_DATA_ROOT")
    file = root / path
    if not file.is_file():
        raise DataError(f"{dataset}: {file} does not exist", hint=f"the data root must hold {path}")
    return file


def read_labels(choice: str, classes: Sequence[str], option: str) -> list[int]:
    """Return the labels of an option in rising order.

    Raises: DataError.
    """
    return sorted(read_choice(choice, classes, option=option, error=DataError))
