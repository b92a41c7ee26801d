"""What data sets of the user's own images share: their options, and who gets which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from mi_image.datasets.pools import Pool
from micore.errors import DataError
from micore.kit.dataset_options import DatasetOptions, read_labels

NONE = "none"


class OwnOptions(DatasetOptions):
    """Options of all data sets of the user's own images."""

    size: int = Field(64, ge=8, le=1024, description="Height and width in pixels after the centre crop")
    channels: Literal[1, 3] = Field(3, description="1: grey, 3: colour")
    private_classes: str | None = Field(
        None, description="Private classes, such as cat,dog or 0-4; default: the others"
    )
    public_classes: str | None = Field(
        None, description="Classes that the adversary has, disjoint from the private ones"
    )
    seed: int = Field(0, description="Seed of the holdout split")


def assign_classes(
    name: str, classes: Sequence[str], settings: OwnOptions, *, separate: bool
) -> tuple[list[int], list[int]]:
    """Return the private and the public labels; ``separate``: no class of these has to be public.

    Raises: DataError when they overlap, no private class is left, or it is not said what is public.
    """
    public = [] if settings.public_classes is None else read_labels(settings.public_classes, classes, "public_classes")
    if settings.private_classes is None:
        private = [label for label in range(len(classes)) if label not in public]
    else:
        private = read_labels(settings.private_classes, classes, "private_classes")
    if both := sorted({*private} & {*public}):
        raise DataError(f"{name}: private and public: " + ", ".join(classes[label] for label in both))
    if not private:
        raise DataError(f"{name}: all classes are public, none is left to be private")
    if not public and not separate:
        raise DataError(
            f"{name}: what does the adversary have? No public images are given",
            hint="public_classes=... sets classes apart; or name a place of public images, or none",
        )
    return private, public


def hold_out(name: str, pool: Pool, share: float, seed: int) -> tuple[Pool, Pool | None]:
    """Cut a share of each class off, at least one image of each when the share is not 0.

    Raises: DataError when the share is not in [0, 1) or a class has too few images.
    """
    if not 0 <= share < 1:
        raise DataError(f"{name}: holdout={share} is not a share of the images, from 0 to below 1")
    require_images(name, pool, 2 if share else 1)
    if not share:
        return pool, None
    counts = torch.bincount(pool.labels, minlength=len(pool.classes)).tolist()
    shares = {label: _shares(count, share) for label, count in enumerate(counts)}
    private, holdout = pool.divide(shares, "holdout", seed)
    return private, holdout


def _shares(count: int, share: float) -> tuple[float, float]:
    held = min(count - 1, max(1, round(count * share)))
    return ((count - held) / count, held / count)


def require_images(name: str, pool: Pool, least: int) -> None:
    """Raise DataError that names the first class with fewer images."""
    counts = torch.bincount(pool.labels, minlength=len(pool.classes)).tolist()
    for class_name, count in zip(pool.classes, counts, strict=True):
        if count == 0:
            raise DataError(f"{name}: class {class_name!r} is empty", hint="remove the class or add images")
        if count < least:
            raise DataError(
                f"{name}: class {class_name!r} has {count} image, too few to hold one out",
                hint="add images, or holdout=0",
            )
