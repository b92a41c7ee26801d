"""Images in memory as bytes, handed out in the canonical range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from micore.files import digest


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Part of a data set (`micore.contracts.Split`).

    images: uint8 (N, C, H, W). labels: int64 (N,), or None when the adversary has none.

    Raises: ValueError when images or labels have another type or shape.
    """

    images: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels is not None and (self.labels.dtype, self.labels.shape) != (
            torch.int64,
            self.images.shape[:1],
        ):
            raise ValueError(f"labels must be int64 ({len(self.images)},), not {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return these images, float32 (len(indices), C, H, W) in [0, 1], on the CPU."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        return self.images[rows].to(torch.float32) / 255

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the images and labels, 64 hex digits."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return digest(list(self.images.shape), self.images.contiguous().numpy().tobytes(), labels)
