"""GraphMI: relaxed edges with which a graph network gives the known classes.

Zhang, Liu, Huang, Wang, Lu, Liu, Chen: "GraphMI: Extracting Private Graph Data from Graph Neural Networks", IJCAI 2021
(arXiv:2106.02820); Zhang et al.: "Model Inversion Attacks against Graph Neural Networks", TKDE 2022 (arXiv:2209.07807).

Threat model: white box; the features of all nodes, the true classes of some or all, and how many edges there are.

1. From no edges, gradient descent lowers the cross-entropy of the known classes, the norm of the edges and, later, how
   much the features of neighbours differ; after each step edges are projected to [0, 1] and to a sum (section 3.2).
2. Recovered are (``decode``) the cosines of what the nodes are after the target's first layer on these edges
   (``encoder``, the paper's graph auto-encoder), the edges themselves (``edges``), or edges drawn by them
   (``sampled``): of several draws that with the lowest loss (section 3.4).

Fidelity notes (paper / authors' code / here)
- Sparsity: the L1 norm / the L2 norm, not squared / as the code.
- Known classes: those of target nodes / of a random tenth of all nodes, test nodes among them / of the share ``known``.
- The sum of edges: a budget / half the true density times the pairs of target nodes, which for a tenth of Cora allows
  52 edges / as many as there are edges, times ``budget``.
- The auto-encoder takes the place of the edges that were found and is not trained / the same / the same.
- Sampling: the paper's last step / left out of the release / ``sampled``.
- The smoothness is computed from inner products of features, equal to the paper's trace without a product of n x n x F.
- The edges are one symmetric matrix; the gradient of a pair is that of both its entries.
- The authors' GAT overwrites its attention by plain sums; here attention is relaxed too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_graph.attack import Found, StructureAttack, require_all_pairs
from mi_graph.cases import known_of
from mi_graph.evidence import Known, Labelled
from mi_graph.graphs import symmetric, values_of_pairs
from mi_graph.relaxed import (
    Descent,
    by_autograd,
    descend,
    drawn,
    encoded,
    relaxed_nodes,
    roughness,
    sparsity,
)  # fmt: skip
from micore.contracts import Case, Config, Prepared
from micore.errors import BudgetExceeded
from micore.runtime import Runtime
from micore.target import CountedModule, Target


class GraphMIConfig(Config):
    """Settings of GraphMI."""

    evidence: Literal["labels"] = Field("labels", description="features and true classes of all nodes")
    known: float = Field(1.0, gt=0, le=1, description="share of the nodes whose classes are used (code: 0.1)")
    steps: int = Field(100, ge=1, description="of gradient descent (code: 100)")
    step_size: float = Field(0.1, gt=0, description="of them (code: 0.1)")
    sparsity: float = Field(1e-3, ge=0, description="weight of the norm of the edges (code: 1e-3)")
    smoothness: float = Field(1e-4, ge=0, description="weight of how much neighbours differ (code: 1e-4)")
    smooth_from: int = Field(50, ge=0, description="step from which on that counts (code: 50)")
    budget: float = Field(1.0, gt=0, description="largest sum of the edges, in numbers of true edges")
    decode: Literal["encoder", "edges", "sampled"] = Field("encoder", description="what is given back (code: encoder)")
    draws: int = Field(20, ge=1, description="of sampled: draws of edges (code: 20)")


class GraphMI(StructureAttack):
    """The attack GraphMI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = GraphMIConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"steps": 40, "smooth_from": 20, "step_size": 1.0},
        "paper": {"known": 0.1, "budget": 0.01},
    }  # fmt: skip
    config: GraphMIConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Search the edges.

        Raises: UsageError for evidence without labels, or of a large graph of which only some pairs are asked about;
        ModelError for a target without graph convolutions.
        """
        known = known_of(case)
        require_all_pairs("graphmi", known)
        search = _Search(
            self.config, target.module, known, Labelled.of(known, self.config.known, case, runtime), runtime
        )
        descent = descend(
            by_autograd(search.loss), torch.zeros(known.n_nodes, known.n_nodes, device=runtime.device),
            steps=self.config.steps, step_size=self.config.step_size,
            most=2 * self.config.budget * known.n_edges,  # each edge stands there twice
        )  # fmt: skip
        scores, problem = search.decoded(descent, case)
        return Found(scores, problem, {"loss": descent.losses})


@dataclass
class _Search:
    """The search for one graph."""

    config: GraphMIConfig
    module: CountedModule
    known: Known
    labelled: Labelled
    runtime: Runtime

    def __post_init__(self) -> None:
        features = self.known.features.to(self.runtime.device)
        self._products = features @ features.T

    def loss(self, edges: Tensor, step: int) -> Tensor:
        """Return the objective (equation 5) at a relaxed adjacency."""
        logits = self.module(relaxed_nodes(self.known.features, edges))
        loss = self.labelled.loss(logits) + self.config.sparsity * sparsity(edges)
        if step < self.config.smooth_from:
            return loss
        return loss + self.config.smoothness * roughness(edges, self._products)

    @torch.no_grad()
    def decoded(self, descent: Descent, case: Case) -> tuple[Tensor, BudgetExceeded | None]:
        """Return the scores of all pairs (p,), and what stopped the search or this; then the edges themselves serve."""
        found = values_of_pairs(descent.edges)
        if descent.problem is not None or self.config.decode == "edges":
            return found, descent.problem
        try:
            if self.config.decode == "encoder":
                return encoded(self.module, self.known.features, descent.edges), None
            return self._sampled(found, case), None
        except BudgetExceeded as error:
            return found, error

    def _sampled(self, found: Tensor, case: Case) -> Tensor:
        """Draw edges without replacement by how much of an edge each pair is; keep the draw with the lowest loss."""
        k = min(self.known.n_edges, int((found > 0).sum()))
        if not k:
            return found
        best, lowest = found, torch.inf
        for draw in range(self.config.draws):
            chosen = drawn(found, k, self.runtime.rng("graphmi", "draw", draw, case.id))
            loss = float(self.loss(symmetric(chosen, self.known.n_nodes), self.config.smooth_from))
            if loss < lowest:
                best, lowest = chosen, loss
        return best
