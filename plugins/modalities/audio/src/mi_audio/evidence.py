"""What an adversary holds of a clip: a voiceprint, or a training clip of which a part is drowned in noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from micore.contracts import Case
from micore.errors import UsageError

INSTANCE_KINDS = ("embedding",)
CORPUS_KINDS = ("masked",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiceprint:
    """An answer of the target to the private clip itself: values (d,), float32, CPU."""

    values: Tensor
    kind: str = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A training clip of which a span is silenced, where a secret was said.

    waveform: (length,), float32, CPU, 0 in the span; span: its first sample and the one after its last; prefix: what is
    said before it; hidden: how many digits are said in it; candidates: all that may be said there.
    """

    waveform: Tensor
    span: tuple[int, int]
    prefix: str
    hidden: int
    candidates: tuple[str, ...]
    kind: str = "masked"


Evidence = TypeVar("Evidence")


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
