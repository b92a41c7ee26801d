"""Labeled Faces in the Wild by identity: 89 private people, other people as public data.

Files under the data root: ``faces/lfw/private_112.zip``, ``public_64.zip``, ``index.csv`` (file, split,
label), and for ``public=utkface`` ``faces/utkface/utk_adult_64.zip``. Faces are aligned by the eyes in all of
them. The pictures are for research; publish no reconstruction of a named person.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from mi_image.datasets.dataset import ImageDataset
from mi_image.datasets.decoding import decode, is_picture, stack
from mi_image.datasets.pools import Pool
from mi_image.splits import ImageSplit
from micore.errors import DataError
from micore.kit.dataset_options import DatasetOptions, read_options, refuse_location, require_file

PUBLIC_FILES = {"lfw": "faces/lfw/public_64.zip", "utkface": "faces/utkface/utk_adult_64.zip"}
_COLUMNS = ("file", "split", "label")
_CHANNELS = 3


class FacesOptions(DatasetOptions):
    """Options of ``faces``."""

    size: int = Field(64, ge=16, le=64, description="Height and width in pixels, reduced by a box filter")
    min_images: int = Field(1, ge=1, description="Leave out people with fewer images; 30 leaves 31 people")
    cap: int = Field(50, ge=1, description="At most so many images per person in each of private and holdout")
    public: Literal["lfw", "utkface"] = Field("lfw", description="Other people of LFW, or adults of UTKFace (shifted)")


def open_faces(location: str | None, **options: Any) -> ImageDataset:
    """Open the faces.

    Labels follow the order of the people; class ``person-07`` is directory ``07`` of the archive.
    Evaluator models are trained on private people only: most public people have a single image.

    Raises: DataError.
    """
    refuse_location("faces", location)
    settings = read_options(FacesOptions, "faces", options)
    files = _read_index(require_file("faces", settings, "faces/lfw/index.csv"))
    archive = require_file("faces", settings, "faces/lfw/private_112.zip")
    public = require_file(f"faces: public={settings.public}", settings, PUBLIC_FILES[settings.public])
    counts = Counter(label for rows in files.values() for _, label in rows)
    people = sorted(label for label, count in counts.items() if count >= settings.min_images)
    if not people:
        raise DataError(f"faces: nobody has {settings.min_images} images", hint=f"at most {max(counts.values())}")
    return ImageDataset(
        name="faces",
        private=_read_people(archive, files["private_train"], people, settings),
        holdout=_read_people(archive, files["private_test"], people, settings),
        public=ImageSplit(_read_pictures(public, None, settings.size)),
        options=settings.model_dump(mode="json"),
    )


def _read_index(path: Path) -> dict[str, list[tuple[str, int]]]:
    """Return file and label of each private image, by split."""
    splits: dict[str, list[tuple[str, int]]] = {"private_train": [], "private_test": []}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                file, split, label = (row[column] for column in _COLUMNS)
                if split in splits:
                    splits[split].append((file, int(label)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="a CSV with columns " + ", ".join(_COLUMNS)) from error
    if not all(splits.values()):
        raise DataError(f"{path} lists no images of " + " or ".join(name for name in splits if not splits[name]))
    return splits


def _read_people(archive: Path, rows: Iterable[tuple[str, int]], people: list[int], settings: FacesOptions) -> Pool:
    taken: Counter[int] = Counter()
    chosen = []
    for file, label in rows:
        if label in people and taken[label] < settings.cap:
            taken[label] += 1
            chosen.append((file, people.index(label)))
    images = _read_pictures(archive, [file for file, _ in chosen], settings.size)
    labels = torch.tensor([label for _, label in chosen], dtype=torch.int64)
    return Pool(images, labels, tuple(f"person-{label:02d}" for label in people))


def _read_pictures(path: Path, names: Sequence[str] | None, size: int) -> Tensor:
    """Decode pictures of an archive, all of them when no names are given."""
    try:
        with zipfile.ZipFile(path) as archive:
            chosen = sorted(filter(is_picture, archive.namelist())) if names is None else names
            return stack((_decode(archive, path, name, size) for name in chosen), size, _CHANNELS)
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="it should be a zip archive; copy it again") from error


def _decode(archive: zipfile.ZipFile, path: Path, name: str, size: int) -> Tensor:
    source = io.BytesIO(archive.read(name))
    return decode(source, f"{path}:{name}", size=size, channels=_CHANNELS, resample=Image.Resampling.BOX)
