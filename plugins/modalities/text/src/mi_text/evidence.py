"""What an adversary holds of a text: an embedding, a completion, the text with a hole..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from micore.contracts import Case
from micore.errors import UsageError

INSTANCE_KINDS = ("embedding",)
PROMPT_KINDS = ("next-token", "outputs")
CORPUS_KINDS = ("nothing", "prefix", "masked", "candidates", "canary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An answer of the target to the private text itself.

    kind: ``embedding``, or ``next-token``: the distribution of the token after the text. values: (d,), float32, CPU.
    """

    kind: str
    values: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What the target wrote after the private text: ``texts``, without the prompt. kind: ``outputs``."""

    texts: tuple[str, ...]
    kind: str = "outputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A training text of which a part is hidden.

    kind: ``prefix`` (only what stands in front is known), ``masked`` (all but the hidden part), ``candidates`` (as
    masked, and the hidden part is one of ``candidates``) or ``canary`` (as candidates, for planted secrets).
    before, after: what stands around the hidden part; slot: the kind of the hidden value, such as ``email``.
    """

    kind: str
    before: str
    after: str = ""
    slot: str = ""
    candidates: tuple[str, ...] = ()

    def filled(self, value: str) -> str:
        """Return the text with a value in the hole."""
        return f"{self.before}{value}{self.after}"


Evidence = TypeVar("Evidence", Observed, Outputs, Hole)


def evidence_of(case: Case, kind: type[Evidence]) -> Evidence:
    """Return a case's evidence.

    Raises: UsageError when the case holds something else.
    """
    if not isinstance(case.evidence, kind):
        raise UsageError(
            f"case {case.id} holds {type(case.evidence).__name__}, not {kind.__name__}",
            hint="leave --evidence out, or give the one that the attack works with",
        )
    return case.evidence
