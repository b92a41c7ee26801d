"""The published weights on real faces. Needs files of the user's; writes no picture anywhere."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_evaluator_face_descriptor.descriptor import describe
from mi_evaluator_face_descriptor.evaluator import WEIGHTS_VARIABLE
from mi_evaluator_face_descriptor.matching import identification, verification
from mi_evaluator_face_descriptor.weights import load_network

GALLERY_PER_PERSON = 10


def lfw_folder() -> Path | None:
    root = os.environ.get("MI_DATA_ROOT")
    folder = Path(root) / "faces" / "lfw" if root else None
    return folder if folder is not None and (folder / "index.csv").is_file() else None


needs_files = pytest.mark.skipif(
    not os.environ.get(WEIGHTS_VARIABLE) or lfw_folder() is None,
    reason=f"needs ${WEIGHTS_VARIABLE} (weights) and $MI_DATA_ROOT/faces/lfw (pictures)",
)


def faces(split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Return at most ``limit`` pictures a person, box-filtered to 64 x 64, and their labels."""
    image = pytest.importorskip("PIL.Image")
    folder = lfw_folder()
    if folder is None:
        pytest.skip("no LFW")
    by_label: dict[int, list[str]] = defaultdict(list)
    for row in csv.DictReader(io.StringIO((folder / "index.csv").read_text())):
        if row["split"] == split:
            by_label[int(row["label"])].append(row["file"])
    chosen = [(name, label) for label, names in sorted(by_label.items()) for name in names[:limit]]
    with zipfile.ZipFile(folder / "private_112.zip") as archive:
        arrays = [np.array(image.open(io.BytesIO(archive.read(name)))) for name, _ in chosen]
    pictures = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    small = functional.interpolate(pictures, (64, 64), mode="area")
    return small, torch.tensor([label for _, label in chosen])


@pytest.mark.data
@needs_files
def test_people_are_told_apart_at_64_pixels() -> None:
    network = load_network(os.environ[WEIGHTS_VARIABLE])
    gallery, gallery_labels = faces("private_train", GALLERY_PER_PERSON)
    pictures, labels = faces("private_test", None)
    cards = (describe(network, pictures), labels, describe(network, gallery), gallery_labels)
    assert identification(*cards).n_classes == 89
    assert identification(*cards).top1 >= 0.97
    strict = verification(*cards, threshold=0.5)
    assert strict.accept_rate >= 0.95
    assert strict.impostor_rate <= 0.01
