"""What runs are made of: cases, what was recovered of them, what is true, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Samples = Any
"""Samples of one modality: a tensor (N, ...) in the canonical range, or a sequence of N items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to reconstruct, with all that the adversary holds of it.

    id: unique in the run and stable over runs, such as ``class-3``; it seeds the case's randomness.
    label: the class under attack (goal ``class``).
    evidence: what the adversary observed (an embedding, a masked sample, a graph's features...).
    """

    id: str
    goal: str
    label: int | None = None
    evidence: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an attack would have given back for a case, had its budget ended earlier.

    queries: what it had spent on this case by then, without what all cases share; samples: as those of a
    reconstruction, best first.
    """

    queries: int
    samples: Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What an attack gives back for one case.

    samples: n samples in the canonical range, best first.
    scores: the attack's own confidence in each of them, shape (n,); never the evaluator's.
    latents: where they stand in the prior, shape (n, ...), when there is one.
    history: the attack's progress, such as the loss every few steps.
    complete: False when the budget stopped the search early and this is the best so far.
    snapshots: earlier stands of the search, each dearer than the one before; for the curve of recovery over queries.
    """

    case: Case
    samples: Samples
    scores: Tensor
    latents: Tensor | None = None
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    complete: bool = True
    snapshots: Sequence[Snapshot] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval; ``level`` is its coverage, such as 0.95."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One figure of an evaluator.

    subject: what was judged: ``attack`` or a control such as ``prior-samples``, ``holdout``.
    direction: what more leakage looks like: ``up``, ``down`` or ``none``.
    n: samples behind the value; clusters: independent units (classes) behind the interval.
    per_case: the value for each case id.
    evaluator: name and identity of the judge; notes: what a reader must know to trust it.
    """

    name: str
    subject: str
    value: float
    interval: Interval | None
    n: int
    clusters: int
    unit: str
    direction: str
    evaluator: str
    per_case: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a case of goal ``instance`` should be recovered to: only judges see it.

    sample: the private sample itself, as samples of length 1; label: its class, None when it has none.
    """

    sample: Samples
    label: int | None = None


def true_label(case: Case, truth: Mapping[str, Truth]) -> int | None:
    """Return the class that a case is of, as judges know it; None where nobody does."""
    if case.label is not None or case.id not in truth:
        return case.label
    return truth[case.id].label
