"""Goal ``instance``: single private images of which the adversary holds a corrupted copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mi_image.corruptions import MaskedImage, corrupt_case, find_corruption, paste, squared_distances
from micore.contracts import Case, Dataset, Reconstruction, Split, Truth
from micore.errors import DataError, UsageError
from micore.kit.choice import read_rows

SPREAD = 20
"""How many private images a run attacks when the user chooses none."""

_PREFIX = "image-"
_BATCH = 1024


def instance_cases(dataset: Dataset | None, choice: str | None, evidence: str | None) -> list[Case]:
    """Return a case for each chosen private image, with its corrupted copy and without its class.

    Raises: UsageError without a data set, for an unknown kind of evidence or a choice that does not fit.
    """
    find_corruption(evidence)
    if dataset is None:
        raise UsageError("goal 'instance' needs the private images that the evidence comes from", hint="give --data")
    private = dataset.split("private")
    rows = spread(private) if choice is None else read_rows(choice, len(private))
    return [_case(row, image, evidence) for row, image in zip(rows, private.take(rows), strict=True)]


def _case(row: int, image: Tensor, evidence: str | None) -> Case:
    case_id = f"{_PREFIX}{row}"
    return Case(id=case_id, goal="instance", evidence=corrupt_case(image, evidence, case_id))


def row_of(case: Case) -> int:
    """Return the row of the private image that a case is about."""
    return int(case.id.removeprefix(_PREFIX))


def spread(split: Split, n: int = SPREAD) -> list[int]:
    """Return up to n rows in rising order: the first of every class, then the second ones, and so on."""
    if split.labels is None:
        return list(range(min(n, len(split))))
    labels = split.labels.tolist()
    seen: dict[int, int] = {}
    order = []
    for row, label in enumerate(labels):
        order.append((seen.setdefault(label, 0), label, row))
        seen[label] += 1
    return sorted(row for _, _, row in sorted(order)[:n])


def instance_truths(cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
    """Return the image (1, C, H, W) and class behind each case, by case id."""
    private = dataset.split("private")
    labels = None if private.labels is None else private.labels.tolist()
    rows = {case.id: row_of(case) for case in cases}
    return {
        case_id: Truth(sample=private.take([row]), label=None if labels is None else labels[row])
        for case_id, row in rows.items()
    }


def instance_floors(cases: Sequence[Case], dataset: Dataset) -> dict[str, list[Reconstruction]]:
    """Return what the adversary has without the target: the evidence, and its completion by public images."""
    floors = {"evidence": [_single(case, _evidence(case).image) for case in cases]}
    try:
        public = dataset.split("public")
    except DataError:
        return floors
    return floors | {"nearest-public": [_single(*found) for found in nearest_public(cases, public)]}


def _evidence(case: Case) -> MaskedImage:
    if not isinstance(case.evidence, MaskedImage):
        raise UsageError(f"case {case.id} holds no masked image")
    return case.evidence


def _single(case: Case, image: Tensor) -> Reconstruction:
    return Reconstruction(case=case, samples=image[None], scores=torch.zeros(1))


def nearest_public(cases: Sequence[Case], public: Split) -> Iterator[tuple[Case, Tensor]]:
    """Complete each case with the public image whose visible part comes nearest to the evidence, (C, H, W)."""
    evidence = [_evidence(case) for case in cases]
    for case, held, row in zip(cases, evidence, _nearest_rows(evidence, public), strict=True):
        (image,) = public.take([row])
        yield case, paste(image, held.image, held.mask)


def _nearest_rows(evidence: Sequence[MaskedImage], public: Split) -> list[int]:
    """Return the row of the nearest public image for each piece of evidence, all of one kind; the first of equals."""
    corruption = find_corruption(evidence[0].kind)
    parts = torch.arange(len(public)).split(_BATCH)
    distances = torch.cat([squared_distances(public.take(rows), evidence, corruption) for rows in parts])
    return distances.argmin(dim=0).tolist()
