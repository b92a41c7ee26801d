"""What runs on audio attack: the voices of speakers, and the clips behind voiceprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mi_audio.evidence import INSTANCE_KINDS, Voiceprint
from mi_audio.splits import AudioSplit
from micore.contracts import Case, Dataset, Reconstruction, Truth
from micore.errors import DataError, UsageError
from micore.kit.choice import read_choice, read_rows
from micore.runtime import Random, derive_seed
from micore.target import Target

SPREAD = 20
"""How many private clips a run attacks when the user chooses none."""

BATCH = 64
_PREFIX = "clip-"


def class_cases(dataset: Dataset | None, bundle_classes: Sequence[str], choice: str | None) -> list[Case]:
    """Return a case for each chosen class of the target.

    Raises: UsageError when nobody knows the classes, or the choice does not fit.
    """
    classes = tuple(bundle_classes) or (dataset.classes if dataset is not None else ())
    if not classes:
        raise UsageError("the target does not say what its classes are", hint="give the data set it was trained on")
    return [Case(id=f"class-{label}", goal="class", label=label) for label in read_choice(choice, classes)]


def instance_cases(dataset: Dataset | None, choice: str | None, evidence: str | None) -> list[Case]:
    """Return a case for each chosen private clip; what the adversary holds comes later, from the target.

    None chosen: `SPREAD` of them, of as many speakers as can be. Raises: UsageError without a data set, for an unknown
    kind of evidence or a choice that does not fit.
    """
    if evidence not in (None, *INSTANCE_KINDS):
        raise UsageError(
            f"--evidence {evidence}: goal 'instance' of audio has none such", hint="one of " + ", ".join(INSTANCE_KINDS)
        )
    private = private_clips(dataset)
    rows = spread(private) if choice is None else read_rows(choice, len(private))
    return [Case(id=f"{_PREFIX}{row}", goal="instance") for row in rows]


def private_clips(dataset: Dataset | None) -> AudioSplit:
    """Return the private split of a data set of clips.

    Raises: UsageError without one, and for one of another kind.
    """
    if dataset is None:
        raise UsageError("this goal needs the private clips that the evidence comes from", hint="give --data")
    return audio_split(dataset, "private")


def audio_split(dataset: Dataset, name: str) -> AudioSplit:
    """Return a split of a data set of clips.

    Raises: DataError when it has none of this name, or it is not of clips.
    """
    split = dataset.split(name)
    if not isinstance(split, AudioSplit):
        raise DataError(f"data set {dataset.name!r} is not of audio clips")
    return split


def spread(split: AudioSplit, n: int = SPREAD) -> list[int]:
    """Return up to n rows in rising order: the first of every class, then the second ones, and so on."""
    if split.labels is None:
        return list(range(min(n, len(split))))
    seen: dict[int, int] = {}
    order = []
    for row, label in enumerate(split.labels.tolist()):
        order.append((seen.setdefault(label, 0), label, row))
        seen[label] += 1
    return sorted(row for _, _, row in sorted(order)[:n])


def row_of(case: Case) -> int:
    """Return the row of the private clip that a case is about."""
    return int(case.id.rpartition("-")[2])


def observed(cases: Sequence[Case], dataset: Dataset, target: Target) -> list[Case]:
    """Return cases of goal ``instance`` with the target's answer to their clips; others as they are."""
    asked = [case for case in cases if case.goal == "instance"]
    if not asked:
        return list(cases)
    private = audio_split(dataset, "private")
    rows = torch.tensor([row_of(case) for case in asked])
    answers = torch.cat([target.scores(private.take(part)).float().cpu() for part in rows.split(BATCH)])
    held = {case.id: Voiceprint(values=values.clone()) for case, values in zip(asked, answers, strict=True)}
    return [replace(case, evidence=held[case.id]) if case.id in held else case for case in cases]


def truths(cases: Sequence[Case], dataset: Dataset) -> dict[str, Truth]:
    """Return the clip (1, length) and speaker behind each case of goal ``instance``, by case id."""
    known = [case for case in cases if case.goal == "instance"]
    if not known:
        return {}
    private = audio_split(dataset, "private")
    labels = None if private.labels is None else private.labels.tolist()
    return {
        case.id: Truth(sample=private.take([row_of(case)]), label=None if labels is None else labels[row_of(case)])
        for case in known
    }


def floors(cases: Sequence[Case], dataset: Dataset) -> dict[str, list[Reconstruction]]:
    """Return ``random-public``: some public clip for each case of goal ``instance``, chosen without the evidence."""
    asked = [case for case in cases if case.goal == "instance"]
    try:
        public = audio_split(dataset, "public")
    except DataError:
        return {}
    rows = [int(Random(derive_seed("random-public", case.id)).integers(len(public), (1,))) for case in asked]
    found = [
        Reconstruction(case=case, samples=public.take([row]), scores=torch.zeros(1))
        for case, row in zip(asked, rows, strict=True)
    ]
    return {"random-public": found} if found else {}
