"""Opening data sets by the name that a user gives: ``digits``, ``folder:PATH``, ``hf:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from micore.contracts import Dataset, HasNotes
from micore.errors import DataError
from micore.registry import Registry

ROOT_OPTION = "data_root"
"""The option that names a place of this machine: kept in runs, which resume here, never in bundles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """What the user asked for: ``name[:location]`` and options such as ``size=64``."""

    uri: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, registry: Registry) -> Dataset:
        """Open the data set.

        Raises: UnknownNameError for the name; DataError for the location or an option.
        """
        name, _, location = self.uri.partition(":")
        opener = registry.load(registry.find("dataset", name))
        dataset: Dataset = opener(location or None, **self.options)
        if len(dataset.split("private")) == 0:
            raise DataError(f"data set {self.uri!r} has no private samples")
        return dataset

    @classmethod
    def parse(cls, uri: str, options: Mapping[str, Any] | None = None, root: str | Path | None = None) -> DataRequest:
        """Read what a user gives; ``root`` is where data sets that are not bundled lie."""
        values = dict(options or {})
        if root is not None:
            values[ROOT_OPTION] = str(Path(root).absolute())
        name, separator, location = uri.partition(":")
        if location and Path(location).exists():
            location = str(Path(location).absolute())  # a run is resumed from anywhere
        return cls(uri=f"{name}{separator}{location}", options=values)

    def under(self, root: str | Path | None) -> DataRequest:
        """Return the same request with another place for data sets that are not bundled; None changes nothing."""
        if root is None:
            return self
        return DataRequest(uri=self.uri, options={**self.options, ROOT_OPTION: str(Path(root).absolute())})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"uri": self.uri, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DataRequest:
        """Read the JSON form."""
        return cls(uri=data["uri"], options=data["options"])


def describe(request: DataRequest, dataset: Dataset) -> dict[str, Any]:
    """Return what a card or manifest says of a data set, enough to open it again and to check it."""
    sizes = {}
    for name in ("private", "holdout", "public"):
        try:
            sizes[name] = len(dataset.split(name))
        except DataError:
            continue
    return {
        "uri": request.uri,
        "options": {name: value for name, value in request.options.items() if name != ROOT_OPTION},
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "splits": sizes,
        "notes": notes_of(dataset),
    }


def notes_of(dataset: Dataset) -> list[str]:
    """Return what a data set changed in what it was given."""
    return list(dataset.notes) if isinstance(dataset, HasNotes) else []
