"""What an adversary holds of a clip: a voiceprint, or a training clip of which a part is drowned in noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from micore.contracts import Case
from micore.errors import UsageError

INSTANCE_KINDS = ("embedding",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiceprint:
    """An answer of the target to the private clip itself: values (d,), float32, CPU."""

    values: Tensor
    kind: str = "embedding"


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
