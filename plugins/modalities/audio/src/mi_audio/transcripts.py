"""What is said in a clip as a row of digits, and as one number: the label that a recogniser of speech learns.

Labels of a split are one int64 for each clip. A transcript is coded in base 11: its first digit is the lowest place,
digit d counts d + 1, and 0 means that nothing follows. So it has at most 18 digits, and the code of silence is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from micore.errors import DataError

DIGITS = tuple("0123456789")
"""The letters that recognisers write, in the order of their numbers less 1; number 0 is the blank of CTC."""

BASE, MOST = len(DIGITS) + 1, 18

LABELS, TRANSCRIPTS = "labels", "transcripts"
"""The option of an `InputSpec`, and its value, by which data say that their labels are coded transcripts."""


def coded(said: Sequence[str]) -> Tensor:
    """Return transcripts as labels, int64 (N,).

    Raises: DataError for one that is too long or has other signs than digits.
    """
    wrong = next((text for text in said if len(text) > MOST or any(sign not in DIGITS for sign in text)), None)
    if wrong is not None:
        raise DataError(f"a transcript must be up to {MOST} digits, not {wrong!r}")
    numbers = [sum((DIGITS.index(sign) + 1) * BASE**place for place, sign in enumerate(text)) for text in said]
    return torch.tensor(numbers, dtype=torch.int64)


def letters(codes: Tensor) -> Tensor:
    """Return the numbers 1 to 10 of the letters of coded transcripts (...,), int64 (..., 18); 0 behind their ends."""
    places = BASE ** torch.arange(MOST, device=codes.device)
    return torch.div(codes[..., None], places, rounding_mode="floor") % BASE


def decoded(codes: Tensor) -> list[str]:
    """Return the transcripts of labels (N,)."""
    return [written(row) for row in letters(codes).tolist()]


def written(numbers: Sequence[int]) -> str:
    """Return letters as text; zeros say nothing."""
    return "".join(DIGITS[number - 1] for number in numbers if number)
