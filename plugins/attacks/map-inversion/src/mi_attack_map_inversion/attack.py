"""Maximum a posteriori inversion: which sensitive value explains the label best?

Fredrikson, Lantz, Jha, Lin, Page, Ristenpart: "Privacy in Pharmacogenetics", USENIX Security 2014 (figure 2);
Fredrikson, Jha, Ristenpart: "Model Inversion Attacks that Exploit Confidence Information", CCS 2015 (section 4.1).

Threat model: labels of the target; of a person all columns but one, and the true label y; how frequent the values of
the hidden column are (p); how often the target answers f when y is true, its confusion matrix C. The value v with the
largest p(v) C[y, f(x_v)] is given back, x_v being the person with value v.

Fidelity notes (paper / here)
- The product over the frequencies of the known columns is the same for all values, and is left out.
- 2014 inverts a regression of doses, whose error is taken for normal / classifiers: a dose is low, medium or high.
- C is published with the model / it is counted on public rows, whose sensitive column is known, each cell with one more
  than there is (shared queries); where public rows do not hold the column, or with ``confusion=assumed``, the target is
  assumed to err with probability ``error``, all wrong classes alike.
- Values that are equally likely: not said / the order of the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_tabular.attack import Ask, AttributeAttack, answered
from mi_tabular.cases import log_shares
from mi_tabular.evidence import KnownRow
from mi_tabular.table import Table
from micore.contracts import Config, Prepared, Split
from micore.runtime import Runtime
from micore.target import Target


class MapInversionConfig(Config):
    """Settings of the attack."""

    confusion: Literal["public", "assumed"] = Field(
        "public", description="where the target's errors are known from: public rows that hold the sensitive column"
    )
    confusion_rows: int = Field(1000, ge=1, description="public rows that are asked about at most")
    error: float = Field(0.1, gt=0, lt=1, description="how often the target is assumed to err, where it is not counted")


class MapInversion(AttributeAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MapInversionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"confusion_rows": 64}, "paper": {"confusion_rows": 10_000},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(MapInversionConfig.model_fields)
    config: MapInversionConfig

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Learn how the target errs.

        Raises: BudgetExceeded.
        """
        rows = _whole_rows(public, self.config.confusion_rows) if self.config.confusion == "public" else None
        if rows is None:
            return Prepared(state={"confusion": assumed(target.n_classes, self.config.error)})
        table, labels = rows
        given = answered(target.labels, table.rows, table.schema, runtime)
        return Prepared(state={"confusion": counted(labels, given, target.n_classes)})

    def ask(self, target: Target) -> Ask:
        """Ask for labels."""
        return target.labels

    def ranking(self, known: KnownRow, answers: Tensor, prepared: Prepared | None) -> Tensor:
        """Return log p(v) + log C[y, f(x_v)]."""
        if prepared is None:
            raise TypeError("the attack was not prepared")
        confusion: Tensor = prepared.state["confusion"]
        return known.log_frequencies() + log_shares(confusion[known.label, answers])


def assumed(n_classes: int, error: float) -> Tensor:
    """Return a confusion matrix (true, answered) of a target that errs so often, all wrong classes alike."""
    wrong = error / max(1, n_classes - 1)
    return torch.full((n_classes, n_classes), wrong).fill_diagonal_(1 - error)


def counted(labels: Tensor, given: Tensor, n_classes: int) -> Tensor:
    """Return how often each class (N,) is answered so (N,), (true, answered), each counted once more than it was."""
    counts = (labels * n_classes + given).bincount(minlength=n_classes**2).view(n_classes, n_classes) + 1.0
    return counts / counts.sum(dim=1, keepdim=True)


def _whole_rows(public: Split | None, limit: int) -> tuple[Table, Tensor] | None:
    """Return the first public rows that hold the sensitive column, with their classes; None without such."""
    if public is None or public.labels is None:
        return None
    table: Table = public.take(range(len(public)))
    rows = (table.values() >= 0).nonzero().flatten()[:limit]
    return (table[rows], public.labels[rows]) if len(rows) else None
