"""The frame of attacks on a graph's structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_graph.baselines import scored
from mi_graph.cases import known_of
from mi_graph.evidence import Known
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, UsageError
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


@dataclass(frozen=True)
class Found:
    """What an attack knows of a graph in the end.

    scores: float (p,), how sure it is of the pairs that are asked about. problem: what stopped it early, raised after
    the scores were given back. history: curves.
    """

    scores: Tensor
    problem: BudgetExceeded | None = None
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)


class StructureAttack:
    """Base: recovers one graph after the other, and gives back whatever a budget leaves.

    A subclass has a ``Config``, ``PRESETS`` and `recover`.
    """

    Config: ClassVar[type[Config]]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare nothing."""
        return None

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Recover the graph of each case.

        Raises: what `recover` raises; BudgetExceeded, after the case was given back.
        """
        for case in cases:
            with target.ledger.owned_by([case.id]):
                found = self.recover(target, case, prepared, runtime)
            given = scored(case, known_of(case), found.scores)
            yield replace(given, history=found.history, complete=found.problem is None)
            if found.problem is not None:
                raise found.problem

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Return how sure the attack is of the pairs that a case asks about; a budget that ends becomes a problem."""
        raise NotImplementedError

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count nothing: what is asked depends on the number of nodes, which is not known before the graph is."""
        return Forecast(preparation=Spending(), per_case=Spending())


def ask_nodes(
    target: Target, known: Known, batch_size: int, service: str | None = None
) -> tuple[list[Tensor], BudgetExceeded | None]:
    """Ask about all nodes, so many at once: scores, or a service of the target.

    Returns: the answers, float32 (b, d) each, to as many nodes as the budget lasted for, and what stopped the asking.
    """
    found: list[Tensor] = []
    try:
        for rows in torch.arange(known.n_nodes).split(batch_size):
            nodes = known.nodes(rows)
            found.append((target.scores(nodes) if service is None else target.ask(service, nodes)).float())
    except BudgetExceeded as error:
        return found, error
    return found, None


def filled(found: Sequence[Tensor], n: int, otherwise: Tensor) -> Tensor:
    """Return answers to n nodes, (n, d): those that were not asked about count as answered like the mean.

    otherwise: (d,), the answer where there is none at all.
    """
    asked = torch.cat(list(found)) if found else otherwise[None]
    missing = n - sum(map(len, found))
    return torch.cat([*found, asked.mean(dim=0, keepdim=True).expand(missing, -1)])


def require_all_pairs(name: str, known: Known, hint: str = "a smaller graph") -> None:
    """Refuse a graph so large that only some pairs are asked about.

    Raises: UsageError.
    """
    if known.pairs is not None:
        raise UsageError(f"{name} holds all pairs of {known.n_nodes} nodes at once: too many", hint=hint)
