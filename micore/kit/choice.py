"""Reading a selection of classes, such as ``0-4,7`` or ``cat,dog``, or of single samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from micore.contracts import Case, Dataset
from micore.errors import MiError, UsageError

ALL = "all"
_RANGE = re.compile(r"(\d+)(?:\s*-\s*(\d+))?", re.ASCII)
_SHOWN = 12


def read_choice(
    choice: str | None,
    classes: Sequence[str],
    *,
    option: str = "--classes",
    error: type[MiError] = UsageError,
) -> list[int]:
    """Return the labels that ``choice`` names, in its order and each once; None and ``all`` are all of them.

    A part between commas is a label, a range of labels (both ends included) or the name of a class. Numbers
    are always labels, even where classes have numbers for names.

    Raises: ``error`` when a part is malformed, out of range or unknown.
    """
    if choice is None or choice.strip() == ALL:
        return list(range(len(classes)))
    parts = [choice] if choice in classes and not _RANGE.fullmatch(choice) else choice.split(",")
    labels = [label for part in parts for label in _read_part(part.strip(), classes, option, error)]
    return list(dict.fromkeys(labels))


def class_cases(dataset: Dataset | None, bundle_classes: Sequence[str], choice: str | None) -> list[Case]:
    """Return a case of goal ``class`` for each chosen class of the target, or else of its data.

    Raises: UsageError when nobody knows the classes, or the choice does not fit.
    """
    classes = tuple(bundle_classes) or (dataset.classes if dataset is not None else ())
    if not classes:
        raise UsageError("the target does not say what its classes are", hint="give the data set it was trained on")
    return [Case(id=f"class-{label}", goal="class", label=label) for label in read_choice(choice, classes)]


def read_rows(choice: str, n: int, *, option: str = "--classes") -> list[int]:
    """Return the rows of n samples that ``choice`` names (``0-9,12``), in its order and each once; ``all`` are all.

    Raises: UsageError when a part is no row or range of rows, or out of range.
    """
    if choice.strip() == ALL:
        return list(range(n))
    rows: list[int] = []
    for part in (text.strip() for text in choice.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UsageError(f"{option} {part}: no number of a sample, nor a range of them", hint="such as 0-9,12")
        rows += _range_of(match, n, option, UsageError, f"{n} private samples, counted from 0")
    return list(dict.fromkeys(rows))


def _read_part(part: str, classes: Sequence[str], option: str, error: type[MiError]) -> Sequence[int]:
    match = _RANGE.fullmatch(part)
    if match is None:
        return [_label_of(part, classes, option, error)]
    return _range_of(match, len(classes), option, error, f"{len(classes)} classes", _listing(classes))


def _range_of(
    match: re.Match[str], n: int, option: str, error: type[MiError], whole: str, hint: str | None = None
) -> Sequence[int]:
    """Return the numbers of a range that must lie below n; ``whole`` says in an error what there is."""
    try:
        first, last = int(match[1]), int(match[2] or match[1])
    except ValueError:  # more digits than Python converts
        first = last = n
    if first > last:
        raise error(f"{option} {match[0]}: a range goes upwards", hint=f"{last}-{first}")
    if last >= n:
        raise error(f"{option} {match[0]} on {whole}", hint=hint)
    return range(first, last + 1)


def _label_of(name: str, classes: Sequence[str], option: str, error: type[MiError]) -> int:
    if name in classes:
        return list(classes).index(name)
    close = get_close_matches(name, classes, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else _listing(classes)
    raise error(f"{option}: {name!r} is neither a class nor a range such as 0-4", hint=hint)


def _listing(classes: Sequence[str]) -> str:
    shown = [f"{label} ({name})" if name != str(label) else name for label, name in enumerate(classes[:_SHOWN])]
    rest = [f"... {len(classes) - 1}"] if len(classes) > _SHOWN else []
    return "there are: " + ", ".join(shown + rest)
