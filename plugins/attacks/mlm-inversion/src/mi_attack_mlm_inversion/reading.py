"""From texts to rows of ids around the part that matters, and back to strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_attack_mlm_inversion.filling import Filler
from mi_text.adapter import pad
from mi_text.tokenizing import SPECIALS


@dataclass(frozen=True, kw_only=True)
class Row:
    """A text as the model reads it: its ids, and the places of the tokens that matter (a value, or all)."""

    ids: tuple[int, ...]
    places: tuple[int, ...]


def hidden(filler: Filler, before: str, after: str, n: int) -> Row:
    """Return a text with n masks between what is known; the space before a hidden word belongs to the word."""
    opening = _plain(filler, before.rstrip(" "))
    ids = [*opening, *[filler.mask_id] * n, *_plain(filler, after)]
    return _windowed(filler, ids, range(len(opening), len(opening) + n))


def shown(filler: Filler, before: str, value: str, after: str) -> Row:
    """Return a text with a value, as it is read once it is written out; its places are those of the value."""
    encoding = filler.tokenizer.encode(f"{before}{value}{after}", add_special_tokens=False)
    start, stop = len(before), len(before) + len(value)
    places = [index for index, (low, high) in enumerate(encoding.offsets) if low < stop and high > start]
    return _windowed(filler, encoding.ids, range(places[0], places[-1] + 1) if places else range(0))


def stacked(filler: Filler, rows: Sequence[Row]) -> Tensor:
    """Return rows as one tensor, int64 (N, width), padded, on the run's device."""
    return pad([row.ids for row in rows], filler.pad_id, filler.width).to(filler.runtime.device)


def special_ids(filler: Filler) -> Tensor:
    """Return the ids that no text consists of, on the run's device."""
    added = set(filler.tokenizer.get_added_tokens_decoder()) | set(range(len(SPECIALS)))
    return torch.tensor(sorted(added), device=filler.runtime.device)


def _plain(filler: Filler, text: str) -> list[int]:
    ids: list[int] = filler.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _windowed(filler: Filler, ids: Sequence[int], places: range) -> Row:
    """Cut what is too long on both sides of the places, and put the tokenizer's marks of beginning and end around."""
    marks = filler.tokenizer.encode("").ids
    opening, closing = marks[: len(marks) // 2], marks[len(marks) // 2 :]
    room = filler.width - len(marks)
    places = range(places.start, min(places.stop, places.start + room))
    spare = room - len(places)
    first = max(0, min(places.start - spare // 2, len(ids) - room))
    shift = len(opening) - first
    return Row(
        ids=(*opening, *ids[first : first + room], *closing),
        places=tuple(place + shift for place in places),
    )
