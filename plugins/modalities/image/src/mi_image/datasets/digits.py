"""The bundled digits: a setting that needs no file and no network.

1,797 pictures of 8x8 pixels (UCI Optical Recognition of Handwritten Digits, CC BY 4.0; see
``data/PROVENANCE.md``).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import torch
from pydantic import Field

from mi_image.datasets.dataset import ImageDataset, judged_others
from mi_image.datasets.pools import Pool
from mi_image.datasets.resizing import resize_grey
from micore.kit.dataset_options import DatasetOptions, read_labels, read_options, refuse_location

DIGITS = tuple("0123456789")
_LARGEST_VALUE = 16


class DigitsOptions(DatasetOptions):
    """Options of ``digits``."""

    size: int = Field(16, ge=8, le=256, description="Height and width in pixels, upscaled bilinearly from 8")
    private: str = Field("0-4", description="Digits that the target is trained on")
    public: str = Field("5-9", description="Digits that the adversary has; may overlap with private")
    seed: int = Field(0, description="Seed of the split")


def open_digits(location: str | None, **options: Any) -> ImageDataset:
    """Open the bundled digits.

    Classes that are private only are cut 75 % private, 25 % holdout; classes that are public only are all
    public. A digit that is both is cut into three equal parts, so that no image is in two splits.

    Raises: DataError.
    """
    refuse_location("digits", location)
    settings = read_options(DigitsOptions, "digits", options)
    private = read_labels(settings.private, DIGITS, "digits: private")
    public = read_labels(settings.public, DIGITS, "digits: public")
    pool = _load(settings.size)
    shares = {label: _shares(label in private, label in public) for label in sorted({*private, *public})}
    own, holdout, others = pool.divide(shares, "digits", settings.seed)
    return ImageDataset(
        name="digits",
        private=own.keep(private),
        holdout=holdout.keep(private),
        public=others.unlabelled(),
        others=judged_others(pool, private, "digits-judging", settings.seed),
        options=settings.model_dump(mode="json"),
    )


def _shares(private: bool, public: bool) -> tuple[float, float, float]:
    if private and public:
        return (1 / 3, 1 / 3, 1 / 3)
    return (0.75, 0.25, 0.0) if private else (0.0, 0.0, 1.0)


def _load(size: int) -> Pool:
    with (
        (files("mi_image") / "data" / "digits.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as data,
    ):
        counts, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"]).to(torch.int64)
    return Pool(resize_grey(counts, size, largest=_LARGEST_VALUE), labels, DIGITS)
