"""A directory of the user's own images: ``folder:PATH``, with one directory per class."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from mi_image.datasets.dataset import ImageDataset, judged_others
from mi_image.datasets.decoding import decode, is_picture, stack
from mi_image.datasets.own import NONE, OwnOptions, assign_classes, hold_out, require_images
from mi_image.datasets.pools import Pool
from mi_image.splits import ImageSplit
from micore.errors import DataError
from micore.kit.dataset_options import PathText, read_options


class FolderOptions(OwnOptions):
    """Options of ``folder``."""

    public: PathText | None = Field(None, description="Directory of public images, with or without classes; or none")
    holdout: float | PathText = Field(
        0.2,
        union_mode="left_to_right",
        description="Share of each class to hold out, or a directory like PATH",
    )


def open_folder(location: str | None, **options: Any) -> ImageDataset:
    """Open a directory with one directory of images per class; hidden and other files are passed over.

    Raises: DataError that names the directory, file, class or option at fault.
    """
    if not location:
        raise DataError("folder needs a directory", hint="folder:PATH, with one directory of images per class")
    settings = read_options(FolderOptions, "folder", options)
    root = Path(location).expanduser()
    classes = _class_names(root)
    separate = settings.public is not None
    if separate and settings.public_classes is not None:
        raise DataError("folder: public and public_classes contradict each other", hint="give one of them")
    _require_disjoint_directories(root, settings)
    private_labels, public_labels = assign_classes("folder", classes, settings, separate=separate)
    pool = _read_classes(root, [classes[label] for label in private_labels], settings)
    private, holdout = _hold_out(pool, settings)
    public, others = _read_public(root, [classes[label] for label in public_labels], private.classes, settings)
    return ImageDataset(
        name=f"folder:{location}", private=private, holdout=holdout, public=public, others=others,
        options=settings.model_dump(mode="json"),
    )  # fmt: skip


def _require_disjoint_directories(root: Path, settings: FolderOptions) -> None:
    named = [root]
    if isinstance(settings.holdout, str):
        named.append(Path(settings.holdout).expanduser())
    if settings.public not in (None, NONE):
        named.append(Path(str(settings.public)).expanduser())
    for one, other in permutations(named, 2):
        if one.resolve().is_relative_to(other.resolve()):
            raise DataError(f"folder: {one} lies in {other}, so images would be in two splits", hint="keep them apart")


def _hold_out(pool: Pool, settings: FolderOptions) -> tuple[Pool, Pool | None]:
    if isinstance(settings.holdout, float):
        return hold_out("folder", pool, settings.holdout, settings.seed)
    root = Path(settings.holdout).expanduser()
    missing = sorted({*pool.classes} - {*_class_names(root)})
    if missing:
        raise DataError(f"holdout directory {root} has no class {missing[0]!r}", hint="it needs all private classes")
    return pool, _read_classes(root, pool.classes, settings)


def _read_public(
    root: Path, names: list[str], private: tuple[str, ...], settings: FolderOptions
) -> tuple[ImageSplit | None, Pool | None]:
    """Return the public images, and those of them that teach evaluator models further classes."""
    if settings.public == NONE:
        return None, None
    if settings.public is None:
        pool = _read_classes(root, names, settings)
        return pool.unlabelled(), judged_others(pool, [], "folder-judging", settings.seed)
    return _read_public_directory(Path(settings.public).expanduser(), private, settings)


def _read_public_directory(
    root: Path, private: tuple[str, ...], settings: FolderOptions
) -> tuple[ImageSplit, Pool | None]:
    names = _directories(root)
    loose = stack(
        _decode_all(filter(_is_visible_picture, sorted(root.iterdir())), settings),
        settings.size,
        settings.channels,
    )
    if not names and not len(loose):
        raise DataError(f"public directory {root} has no images")
    pool = _read_classes(root, names, settings)
    shared = [label for label, name in enumerate(pool.classes) if name in private]
    others = judged_others(pool, shared, "folder-judging", settings.seed)
    return ImageSplit(torch.cat([pool.images, loose])), others


def _class_names(root: Path) -> tuple[str, ...]:
    names = _directories(root)
    if not names:
        raise DataError(f"{root} has no directories", hint="put the images of each class into a directory of its own")
    return names


def _directories(root: Path) -> tuple[str, ...]:
    try:
        return tuple(
            sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        )
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}", hint="give a directory") from error


def _read_classes(root: Path, names: Iterable[str], settings: FolderOptions) -> Pool:
    files = [(file, label) for label, name in enumerate(names) for file in _pictures(root / name)]
    images = stack(_decode_all((file for file, _ in files), settings), settings.size, settings.channels)
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    pool = Pool(images, labels, tuple(names))
    require_images(str(root), pool, 1)
    return pool


def _pictures(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if _is_visible_picture(file))


def _is_visible_picture(file: Path) -> bool:
    return not file.name.startswith(".") and is_picture(file.name) and file.is_file()


def _decode_all(files: Iterable[Path], settings: FolderOptions) -> Iterable[torch.Tensor]:
    return (decode(file, str(file), size=settings.size, channels=settings.channels) for file in files)
