"""From transcripts of clips whose last digits are noise to guesses of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def hidden_part(transcript: str, prefix: str, hidden: int) -> str:
    """Return what a transcript says after the known digits: behind its beginning that is most like these.

    Of beginnings as like, the one behind which most nearly so many digits stand as are hidden, then the shorter one.
    """
    distances = beginnings(transcript, prefix)
    cut = min(range(len(distances)), key=lambda end: (distances[end], abs(len(transcript) - end - hidden), end))
    return transcript[cut:]


def beginnings(transcript: str, prefix: str) -> list[int]:
    """Return the edit distance of each beginning of a transcript, of 0, 1, ... signs, to the prefix."""
    row = list(range(len(prefix) + 1))
    found = [row[-1]]
    for sign in transcript:
        above, row = row, [row[0] + 1]
        for place, known in enumerate(prefix):
            row.append(min(above[place] + (sign != known), above[place + 1] + 1, row[place] + 1))
        found.append(row[-1])
    return found


def ranked(transcripts: Sequence[str], prefix: str, hidden: int) -> tuple[list[str], list[float]]:
    """Return different guesses of the hidden digits, best first, and a score for each.

    The score is the share of transcripts that say so; 1 less where other than so many digits were heard. Of as frequent
    ones the first in order of digits comes first.
    """
    counts = Counter(hidden_part(transcript, prefix, hidden) for transcript in transcripts)
    scores = {text: count / len(transcripts) - (len(text) != hidden) for text, count in counts.items()}
    order = sorted(scores, key=lambda text: (-scores[text], text))
    return order, [scores[text] for text in order]
