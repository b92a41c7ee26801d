"""MNIST, with digits, letters or another post office's digits as public data.

Files under the data root: ``digits/mnist/mnist.npz`` (x_train, y_train, x_test, y_test), and for a shifted
public set ``digits/omniglot/omniglot_small_28.npz`` (x, y) or ``digits/usps/usps_part.npz`` (x_b, y_b).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mi_image.datasets.dataset import ImageDataset, judged_others
from mi_image.datasets.digits import DIGITS
from mi_image.datasets.pools import Pool
from mi_image.datasets.resizing import resize_grey
from mi_image.splits import ImageSplit
from micore.errors import DataError
from micore.kit.dataset_options import DatasetOptions, read_labels, read_options, refuse_location, require_file


class MnistOptions(DatasetOptions):
    """Options of ``mnist``."""

    size: int = Field(32, ge=8, le=256, description="Height and width in pixels, resized bilinearly from 28")
    private: str = Field("0-4", description="Digits that the target is trained on")
    public: str = Field("5-9", description="Digits that the adversary has; or omniglot (letters), or usps")
    limit: int | None = Field(None, ge=1, description="At most so many images per class in each split")
    seed: int = Field(0, description="Seed of the cuts")


def open_mnist(location: str | None, **options: Any) -> ImageDataset:
    """Open MNIST: private and public digits from its training set, holdout from its test set.

    A digit that is both private and public has its training images cut in halves. ``public=usps`` takes the
    digits of USPS that are not private, so that classes stay disjoint.

    Raises: DataError.
    """
    refuse_location("mnist", location)
    settings = read_options(MnistOptions, "mnist", options)
    private = read_labels(settings.private, DIGITS, "mnist: private")
    file = require_file("mnist", settings, "digits/mnist/mnist.npz")
    train, test = _pool(file, "x_train", "y_train"), _pool(file, "x_test", "y_test")
    own, public = _private_and_public(settings, train, private)
    others = judged_others(train, private, "mnist-judging", settings.seed)
    return ImageDataset(
        name="mnist",
        private=_finish(own.keep(private), settings),
        holdout=_finish(test.keep(private), settings),
        public=public,
        others=None if others is None else _finish(others, settings),
        options=settings.model_dump(mode="json"),
    )


def _private_and_public(settings: MnistOptions, train: Pool, private: list[int]) -> tuple[Pool, ImageSplit]:
    if settings.public == "omniglot":
        return train, _finish(_omniglot(settings), settings).unlabelled()
    if settings.public == "usps":
        return train, _finish(_usps(settings, private), settings).unlabelled()
    public = read_labels(settings.public, DIGITS, "mnist: public")
    shares = {label: _shares(label in private, label in public) for label in sorted({*private, *public})}
    own, others = train.divide(shares, "mnist", settings.seed)
    return own, _finish(others, settings).unlabelled()


def _shares(private: bool, public: bool) -> tuple[float, float]:
    return (0.5, 0.5) if private and public else (float(private), float(public))


def _omniglot(settings: MnistOptions) -> Pool:
    file = require_file("mnist: public=omniglot", settings, "digits/omniglot/omniglot_small_28.npz")
    images, labels = _arrays(file, "x", "y")
    return Pool(images, labels, tuple(f"character-{label}" for label in range(int(labels.max()) + 1)))


def _usps(settings: MnistOptions, private: list[int]) -> Pool:
    file = require_file("mnist: public=usps", settings, "digits/usps/usps_part.npz")
    return _pool(file, "x_b", "y_b").keep([label for label in range(len(DIGITS)) if label not in private])


def _pool(file: Path, images: str, labels: str) -> Pool:
    return Pool(*_arrays(file, images, labels), DIGITS)


def _arrays(file: Path, images: str, labels: str) -> tuple[Tensor, Tensor]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            return torch.from_numpy(data[images]), torch.from_numpy(data[labels].astype(np.int64))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{file} cannot be read: {error}", hint="it should be an .npz archive; copy it again"
        ) from error


def _finish(pool: Pool, settings: MnistOptions) -> Pool:
    limited = pool.first(settings.limit)
    return Pool(resize_grey(limited.images, settings.size), limited.labels, limited.classes)
