"""What data sets of the user's own texts share: their options, and which text is in which split."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from pydantic import Field
from torch import Tensor

from mi_text.datasets.dataset import TextDataset
from mi_text.datasets.options import TextOptions
from mi_text.splits import TextSplit
from micore.errors import DataError
from micore.kit.dataset_options import PathText
from micore.runtime import derive_seed

NONE = "none"
ONE_CLASS = "text"
JUDGED_SHARE = 0.8
"""Share of the public texts of further classes on which evaluator models are trained."""


class OwnOptions(TextOptions):
    """Options of all data sets of the user's own texts."""

    public: float | PathText = Field(
        NONE,
        union_mode="left_to_right",
        description="Texts of the adversary: another file, a share of this one, or none",
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts as they are read from one place, and the names of their classes, or None."""

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | None

    def classes(self) -> tuple[str, ...]:
        """Return the names of all classes, numbers in their order; texts without labels are of one class."""
        return _ordered(set(self.labels)) if self.labels is not None else (ONE_CLASS,)

    def label_of(self, row: int) -> str:
        """Return the name of a row's class."""
        return ONE_CLASS if self.labels is None else self.labels[row]

    def keep(self, rows: Sequence[int]) -> Rows:
        """Return some of the rows."""
        labels = None if self.labels is None else tuple(self.labels[row] for row in rows)
        return Rows(self.name, tuple(self.texts[row] for row in rows), labels)

    def without(self, texts: Iterable[str]) -> Rows:
        """Return the rows of other texts than these."""
        unwanted = set(texts)
        return self.keep([row for row, text in enumerate(self.texts) if text not in unwanted])

    def labelled(self, classes: Sequence[str]) -> TextSplit:
        """Return the texts with labels.

        Raises: DataError when one is of another class.
        """
        number = {name: label for label, name in enumerate(classes)}
        names = [self.label_of(row) for row in range(len(self.texts))]
        if unknown := set(names) - number.keys():
            raise DataError(
                f"{self.name}: class {min(unknown)!r} has no private texts", hint="there: " + ", ".join(classes)
            )
        return TextSplit(self.texts, _tensor(number[name] for name in names))


def make_dataset(
    name: str, rows: Rows, settings: OwnOptions, *, holdout: Rows | float, public: Rows | float | None
) -> TextDataset:
    """Divide rows; ``holdout`` and ``public`` are shares to cut off (0: no such split), or rows of another place.

    What is cut off are different texts: all rows of one text come into the same split. Of other places' rows, those
    are left out whose text is in a split that comes before (private, holdout, public).

    Raises: DataError when a share is not in [0, 1), or a split or a class has too few texts.
    """
    shares = {"holdout": _share("holdout", holdout, name), "public": _share("public", public, name)}
    parts = _divide(rows, shares, settings.seed)
    private = parts["private"]
    held = holdout.without(private.texts) if isinstance(holdout, Rows) else parts["holdout"]
    open_rows = public.without(private.texts + held.texts) if isinstance(public, Rows) else parts["public"]
    for split, given, left in (("holdout", holdout, held), ("public", public, open_rows)):
        if isinstance(given, Rows) and not left.texts:
            raise DataError(
                f"{given.name}: no text is left for {split}, all are in other splits", hint="give another place"
            )
    classes = rows.classes()
    others, other_classes = _others(public, open_rows, classes, settings.seed)
    return TextDataset(
        name=name,
        classes=classes,
        private=private.labelled(classes),
        holdout=held.labelled(classes) if held.texts else None,
        public=TextSplit(open_rows.texts) if open_rows.texts else None,
        others=others,
        other_classes=other_classes,
        vocabulary=settings.vocabulary,
        max_tokens=settings.max_tokens,
        options=settings.model_dump(mode="json"),
    )


def require_column(name: str, column: str, columns: Sequence[str], option: str) -> None:
    """Raise DataError, with close matches, when there is no such column."""
    if column in columns:
        return
    close = get_close_matches(column, columns, n=3)
    hint = f"did you mean {option}={close[0]}?" if close else f"{option}=..., one of " + ", ".join(columns)
    raise DataError(f"{name} has no column {column!r}", hint=hint)


def _share(option: str, value: Rows | float | None, name: str) -> float:
    """Return the share that is cut off the private rows: none when others are given."""
    if value is None or isinstance(value, Rows):
        return 0.0
    if not 0 <= value < 1:
        raise DataError(f"{name}: {option}={value} is no share, from 0 to below 1", hint=f"such as {option}=0.2")
    return value


def _divide(rows: Rows, shares: Mapping[str, float], seed: int) -> dict[str, Rows]:
    """Cut shares of the different texts of each class off, at least one text for each share that is not 0."""
    split_of: dict[str, str] = {}
    for label, texts in _texts_by_class(rows).items():
        counts = {split: max(1, round(len(texts) * share)) for split, share in shares.items() if share}
        if len(texts) <= sum(counts.values()):
            raise DataError(
                f"{rows.name}: class {label!r} has too few different texts ({len(texts)}) for "
                + ", ".join(("private", *counts)),
                hint="give more texts, or cut off less: holdout=0, public=none",
            )
        random.Random(derive_seed("texts", seed, label)).shuffle(texts)
        for split, count in counts.items():
            split_of.update(dict.fromkeys(texts[:count], split))
            del texts[:count]
    places = [split_of.get(text, "private") for text in rows.texts]
    return {
        split: rows.keep([row for row, place in enumerate(places) if place == split])
        for split in ("private", "holdout", "public")
    }


def _texts_by_class(rows: Rows) -> dict[str, list[str]]:
    """Return the different texts of each class; a text of several classes counts for that of its first row."""
    first: dict[str, str] = {}
    for row, text in enumerate(rows.texts):
        first.setdefault(text, rows.label_of(row))
    return {name: [text for text, label in first.items() if label == name] for name in rows.classes()}


def _others(
    public: Rows | float | None, rows: Rows, classes: Sequence[str], seed: int
) -> tuple[TextSplit | None, tuple[str, ...]]:
    """Return the public texts of classes that are not private which evaluator models learn, and these classes."""
    if not isinstance(public, Rows) or rows.labels is None:
        return None, ()
    further = _ordered(set(rows.labels) - set(classes))
    if not further:
        return None, ()
    chosen: list[int] = []
    for name in further:
        places = [row for row, label in enumerate(rows.labels) if label == name]
        random.Random(derive_seed("texts-judging", seed, name)).shuffle(places)
        chosen += places[: max(1, round(JUDGED_SHARE * len(places)))]
    return rows.keep(sorted(chosen)).labelled(further), further


def _ordered(names: set[str]) -> tuple[str, ...]:
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (len(name), name) if numbers else (0, name)))


def _tensor(labels: Iterable[int]) -> Tensor:
    return torch.tensor(list(labels), dtype=torch.int64)
