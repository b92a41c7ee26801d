"""Maximum a posteriori inversion of trees, white box with counts.

Fredrikson, Jha, Ristenpart: "Model Inversion Attacks that Exploit Confidence Information", CCS 2015 (section 4.2).

Threat model: the tree, or forest, with the number of training rows of each class in its leaves; of a person all columns
but one, and the true label y; how frequent the values of the hidden column are (p). The person with value v reaches one
leaf: the value with the largest p(v) n(leaf, y) / N is given back, n counting the training rows of class y there.

Fidelity notes (paper / here)
- Paths that fit what is known are weighed by their shares of the training rows / the same, by the rows of class y:
  y is known, too. One leaf fits each value, as all other columns are known.
- One tree / of a forest the mean of the counts, which are those of its bootstrap samples.
- Values that reach the same leaf, or empty ones: the likelier by p.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_tabular.attack import Ask, AttributeAttack
from mi_tabular.cases import log_shares
from mi_tabular.evidence import KnownRow
from mi_tabular.table import Table
from mi_tabular.trees import TreeEnsemble
from micore.contracts import Config, NoConfig, Prepared
from micore.errors import ModelError
from micore.target import Target


class CountInversion(AttributeAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = NoConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {}}

    def ask(self, target: Target) -> Ask:
        """Look up the training rows of each class in the leaf that a row reaches, as shares of all.

        Raises: ModelError for a target that is no tree.
        """
        module = target.module
        trees = module.inner
        if not isinstance(trees, TreeEnsemble):
            raise ModelError(
                f"map-inversion-wb reads trees; the target is a {type(trees).__name__}", hint="map-inversion, or csmia"
            )

        def counts(table: Table) -> Tensor:
            seen: list[Tensor] = []
            handle = trees.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                with torch.no_grad():
                    module(table)
            finally:
                handle.remove()
            return trees.rows[trees.leaves(seen[0])].mean(dim=1) / trees.n_training_rows

        return counts

    def ranking(self, known: KnownRow, answers: Tensor, prepared: Prepared | None) -> Tensor:
        """Return log p(v) + log n(leaf, y) / N."""
        return known.log_frequencies() + log_shares(answers[:, known.label])
