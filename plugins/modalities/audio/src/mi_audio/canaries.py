"""Planted secrets: clips of a known beginning and a secret end, so many times among the private clips, or never."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One planted clip.

    number: of the secret in its data set; split: where a copy of the clip is, ``private`` or, for one that was never
    trained on, ``holdout``; row: of that copy; repeats: how many copies are private; span: the first sample of the
    secret and the one after its last, in the canonical clip; prefix, secret: what is said before and in the span.
    """

    number: int
    split: str
    row: int
    repeats: int
    span: tuple[int, int]
    prefix: str
    secret: str

    @property
    def id(self) -> str:
        """The id of the case that is about it."""
        return f"canary-{self.number}-r{self.repeats}"

    @property
    def transcript(self) -> str:
        """What is said in the clip."""
        return self.prefix + self.secret
