"""What runs on audio attack: the voices of speakers, clips behind voiceprints, secrets in training clips."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import torch

from mi_audio.canaries import Canary
from mi_audio.evidence import CORPUS_KINDS, INSTANCE_KINDS, Masked, Voiceprint, evidence_of
from mi_audio.splits import AudioSplit
from mi_audio.transcripts import DIGITS
from micore.contracts import Case, Dataset, Reconstruction, Truth
from micore.errors import DataError, UsageError
from micore.kit.choice import read_rows
from micore.runtime import Random, derive_seed
from micore.target import Target

SPREAD = 20
"""How many private clips a run attacks when the user chooses none."""

BATCH = 64
_PREFIX = "clip-"


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


def corpus_cases(dataset: Dataset | None, choice: str | None, evidence: str | None) -> list[Case]:
    """Return a case for each chosen planted secret of a data set, those that were never trained on among them.

    Raises: UsageError without planted secrets, for an unknown kind of evidence or a choice that does not fit.
    """
    if evidence not in (None, *CORPUS_KINDS):
        raise UsageError(
            f"--evidence {evidence}: goal 'corpus' of audio has none such", hint="one of " + ", ".join(CORPUS_KINDS)
        )
    known = canaries_of(dataset)
    if dataset is None or not known:
        raise UsageError("goal 'corpus' of audio needs clips with planted secrets", hint="--data spoken-strings")
    chosen = known if choice is None else [known[row] for row in read_rows(choice, len(known))]
    return [Case(id=canary.id, goal="corpus", evidence=masked(canary, dataset)) for canary in chosen]


def canaries_of(dataset: Dataset | None) -> tuple[Canary, ...]:
    """Return the planted secrets of a data set; none where it has none."""
    return tuple(getattr(dataset, "canaries", ()))


def masked(canary: Canary, dataset: Dataset) -> Masked:
    """Return what the adversary holds of a planted clip: all but the secret."""
    (waveform,) = audio_split(dataset, canary.split).take([canary.row])
    waveform[slice(*canary.span)] = 0
    hidden = len(canary.secret)
    candidates = tuple("".join(digits) for digits in product(DIGITS, repeat=hidden))
    return Masked(waveform=waveform, span=canary.span, prefix=canary.prefix, hidden=hidden, candidates=candidates)


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
    """Return what is behind each case, by case id: the clip (1, length) and its speaker, or the whole transcript."""
    said = {canary.id: Truth(sample=[canary.transcript]) for canary in canaries_of(dataset)}
    found = {case.id: said[case.id] for case in cases if case.goal == "corpus"}
    known = [case for case in cases if case.goal == "instance"]
    if not known:
        return found
    private = audio_split(dataset, "private")
    labels = None if private.labels is None else private.labels.tolist()
    return found | {
        case.id: Truth(sample=private.take([row_of(case)]), label=None if labels is None else labels[row_of(case)])
        for case in known
    }


def floors(cases: Sequence[Case], dataset: Dataset) -> dict[str, list[Reconstruction]]:
    """Return what the adversary has without the target.

    Of goal ``instance`` ``random-public``: some public clip, chosen without the evidence. Of ``corpus``, all candidates
    in order: ``random-guess``, any order; ``digit-prior``, by the frequencies of digits in public transcripts.
    """
    try:
        public = audio_split(dataset, "public")
    except DataError:
        return {}
    asked = [case for case in cases if case.goal == "instance"]
    rows = [int(Random(derive_seed("random-public", case.id)).integers(len(public), (1,))) for case in asked]
    clips = [
        Reconstruction(case=case, samples=public.take([row]), scores=torch.zeros(1))
        for case, row in zip(asked, rows, strict=True)
    ]
    hidden = [case for case in cases if case.goal == "corpus"]
    found = {"random-public": clips, "random-guess": [_guessed(case) for case in hidden]}
    if public.transcripts:
        counts = Counter("".join(public.transcripts))
        found["digit-prior"] = [_guessed(case, counts) for case in hidden]
    return {name: items for name, items in found.items() if items}


def _guessed(case: Case, counts: Mapping[str, int] | None = None) -> Reconstruction:
    """Rank the candidates of a case by their digits' frequencies, or at random."""
    held = evidence_of(case, Masked)
    scores = Random(derive_seed("random-guess", case.id)).uniform((len(held.candidates),))
    if counts is not None:
        scores = torch.tensor([sum(math.log(1 + counts[sign]) for sign in text) for text in held.candidates])
    order = scores.argsort(descending=True, stable=True)
    samples = [held.prefix + held.candidates[place] for place in order.tolist()]
    return Reconstruction(case=case, samples=samples, scores=scores[order])
