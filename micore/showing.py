"""How a modality shows samples in ways that not every modality has: against the truth, and blurred."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from micore.records import Samples

__all__ = ["ShowsBlurred", "ShowsDifferences", "masked"]


@runtime_checkable
class ShowsDifferences(Protocol):
    """A modality that can mark where recovered samples differ from the truth."""

    def show_against(self, truth: Samples, samples: Samples, limit: int) -> str:
        """Return a self-contained HTML fragment of up to ``limit`` samples; truth: a sample, of length 1."""


@runtime_checkable
class ShowsBlurred(Protocol):
    """A modality that can show that samples are there without showing whom or what they are of."""

    def show_blurred(self, samples: Samples, limit: int) -> str:
        """Return a self-contained HTML fragment of up to ``limit`` samples, too coarse to recognise anybody.

        What is hidden must not be in the fragment at all: a page's style hides nothing from who has the page.
        """


def masked(text: str) -> str:
    """Return a text's shape: its length, its words, its capitals and digits, and no character of it but spaces."""
    return "".join(_shape(character) for character in text)


def _shape(character: str) -> str:
    if character.isspace():
        return " "
    if character.isdigit():
        return "0"
    return ("X" if character.isupper() else "x") if character.isalpha() else "."
