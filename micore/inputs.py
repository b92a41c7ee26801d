"""What a model takes: belongs to the model, never to the attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from micore.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The input of a model, seen from the canonical range of its modality.

    shape: of one sample, such as (channels, height, width).
    mean, std: per channel, applied to canonical values: ``(sample - mean) / std``; empty for none.
    options: what only one modality knows (a tokenizer, a sampling rate in Hz).
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ModelError(f"input spec: {len(self.mean)} means but {len(self.std)} standard deviations")
        if any(value <= 0 for value in self.std):
            raise ModelError(f"input spec: standard deviations must be positive, not {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InputSpec:
        """Read the JSON form.

        Raises: ModelError when a field is missing or malformed.
        """
        try:
            return cls(
                shape=tuple(int(size) for size in data["shape"]),
                mean=tuple(float(value) for value in data.get("mean", ())),
                std=tuple(float(value) for value in data.get("std", ())),
                options=dict(data.get("options", {})),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"input spec {data!r} is malformed: {error}") from error
