"""LOMIA: the sensitive value by labels alone.

Mehnaz, Dibbo, Kabir, Li, Bertino: "Are Your Sensitive Attributes Private? Novel Model Inversion Attribute Inference
Attacks on Classification Models", USENIX Security 2022 (arXiv:2201.09370), section 4.2.

Threat model: the target's labels; rows without the sensitive column but with true labels; of a person all columns but
one, and the true label. Rows on which one value alone makes the target right (case 1 of CSMIA) are taken to have it: an
attack model learns from them the sensitive value by the known columns and the label.

Fidelity notes (paper / here)
- The rows are those of the attacked people themselves / public rows, whose own sensitive values are not looked at: what
  is learned for one case must not depend on which others are attacked. Pass the attacked rows as public ones to have it
  as in the paper.
- Ensembles of a service (BigML) / a random forest of 100 trees, leaves of 5 rows.
- A case on which one value alone makes the target right is given this value (``own=true``, the default), others what
  the forest says; ``own=false``: all are given what the forest says.
- No such rows at all: not said / the values by their frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor
from torch.nn import functional

from mi_tabular.attack import Ask, AttributeAttack, answered
from mi_tabular.evidence import KnownRow
from mi_tabular.table import Table
from mi_tabular.trees import TreeEnsemble
from micore.contracts import Config, Prepared, Split
from micore.errors import DataError
from micore.runtime import Runtime
from micore.target import Target

SURE = 100.0
"""What is added to the only value that makes the target right: above all logarithms of the forest's shares."""


class LabelOnlyConfig(Config):
    """Settings of the attack."""

    rows: int = Field(2000, ge=1, description="public rows that are asked about at most, each with every value")
    trees: int = Field(100, ge=1, description="of the attack model, a random forest")
    leaf: int = Field(5, ge=1, description="rows of its leaves at least")
    own: bool = Field(True, description="a row on which one value alone makes the target right is given this value")


class LabelOnly(AttributeAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = LabelOnlyConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"rows": 64, "trees": 20}, "paper": {"rows": 35_000},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset({"rows", "trees", "leaf"})
    config: LabelOnlyConfig

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Learn the attack model.

        Raises: DataError for public rows without labels; BudgetExceeded.
        """
        if public is None or public.labels is None:
            raise DataError("lomia learns from public rows with their true labels, and there are none")
        table: Table = public.take(range(min(len(public), self.config.rows)))
        labels = public.labels[: len(table)]
        schema = table.schema
        rows = schema.candidates(table.rows)
        answers = answered(target.labels, rows.flatten(0, 1), schema, runtime).view(len(table), -1)
        is_right = answers == labels[:, None]
        chosen = is_right.sum(dim=1) == 1
        values = is_right[chosen].long().argmax(dim=1)
        if len(values.unique()) < 2:
            return Prepared(state={"trees": {}})
        columns = told(schema.known(table.rows[chosen]), labels[chosen], target.n_classes)
        return Prepared(state={
            "trees": self._learned(columns, values, len(schema.values), runtime), "classes": target.n_classes,
        })  # fmt: skip

    def _learned(self, columns: Tensor, values: Tensor, n_values: int, runtime: Runtime) -> dict[str, Tensor]:
        forest = RandomForestClassifier(
            self.config.trees, min_samples_leaf=self.config.leaf, random_state=runtime.rng("forest").seed() % 2**32
        )
        forest.fit(columns.numpy(), values.numpy())
        trees = TreeEnsemble(n_values)
        trees.take(forest, range(n_values))
        return {name: tensor.detach() for name, tensor in trees.state_dict().items()}

    def ask(self, target: Target) -> Ask:
        """Ask for labels."""
        return target.labels

    @torch.no_grad()
    def ranking(self, known: KnownRow, answers: Tensor, prepared: Prepared | None) -> Tensor:
        """Return the forest's logarithms of shares, or, without a forest, those of the frequencies."""
        is_right = answers == known.label
        state = prepared.state if prepared is not None else {}
        scores = _by_forest(state, known) if state.get("trees") else known.log_frequencies()
        if self.config.own and int(is_right.sum()) == 1:
            scores = scores + SURE * is_right
        return scores


def _by_forest(state: Mapping[str, Any], known: KnownRow) -> Tensor:
    trees = TreeEnsemble(len(known.schema.values))
    trees.load_state_dict(dict(state["trees"]))
    columns = told(known.schema.known(known.row[None]), torch.tensor([known.label]), state["classes"])
    logits: Tensor = trees(columns)[0].double()
    return logits


def told(known: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return known columns (N, width) beside the true labels (N,), one-hot."""
    return torch.cat([known, functional.one_hot(labels, n_classes).float()], dim=1)
