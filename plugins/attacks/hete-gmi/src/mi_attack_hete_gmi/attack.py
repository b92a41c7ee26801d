"""HomoGMI and HeteGMI: relaxed edges that give the known classes and join nodes that are, and have neighbours, alike.

Liu, Zhou, Zhang, Liu, Si, Li: "Model Inversion Attacks on Homogeneous and Heterogeneous Graph Neural Networks",
SecureComm 2023 (arXiv:2310.09800).

Threat model: white box; the features of all nodes, the true classes of some or all, and how many edges there are.

Projected gradient descent on relaxed edges lowers the cross-entropy of the known classes and the norm of the edges, and
raises two proximities of the nodes' features after the target's first layer on the present edges:

- of first order: how alike the two nodes of each edge are;
- of second order: how alike the neighbours of each node are among each other.

Where the target tells kinds of edges apart (HeteGMI), each kind has relaxed edges and a budget of its own, and a pair
counts by its surest kind.

Fidelity notes (paper / here; there is no public code, and the text was not at hand but for its abstract)
- The objective: the target's cross-entropy and proximities of first and second order, by gradient descent / the same.
- Both proximities' formulas are ours: inner products of features of length 1, summed over edges; and the squared length
  of the sum of a node's neighbours, over their number. Neither holds more than n x n numbers.
- The features that they compare are not differentiated through.
- HeteGMI: relaxed adjacencies along meta-paths / of the kinds of edges that the data set has: a meta-path is such a
  kind, where a graph is stored with its meta-paths as edges.
- The search begins with equal values of all pairs: at no edges at all, a mean over neighbours has no usable gradient.
- The budget of edges, the projection, and what is given back (``decode``) are those of GraphMI.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mi_graph.attack import Found, StructureAttack, require_all_pairs
from mi_graph.cases import known_of
from mi_graph.evidence import Known, Labelled
from mi_graph.graphs import values_of_pairs
from mi_graph.relaxed import Descent, by_autograd, descend, encoded, layers_of, relaxed_nodes, sparsity
from micore.contracts import Case, Config, Prepared
from micore.errors import BudgetExceeded
from micore.runtime import Runtime
from micore.target import CountedModule, Target


class HeteGMIConfig(Config):
    """Settings of the attack."""

    evidence: Literal["labels"] = Field("labels", description="features and true classes of all nodes")
    known: float = Field(1.0, gt=0, le=1, description="share of the nodes whose classes are used")
    steps: int = Field(100, ge=1, description="of gradient descent")
    step_size: float = Field(0.1, gt=0, description="of them")
    sparsity: float = Field(1e-3, ge=0, description="weight of the norm of the edges")
    first_order: float = Field(1e-2, ge=0, description="weight of how alike the nodes of an edge are")
    second_order: float = Field(1e-3, ge=0, description="weight of how alike the neighbours of a node are")
    even: bool = Field(True, description="begin with equal values of all pairs, not with none")
    budget: float = Field(1.0, gt=0, description="largest sum of the edges, in numbers of true edges")
    decode: Literal["encoder", "edges"] = Field(
        "encoder", description="encoder: cosines after the target's first layer on the edges found; edges: these"
    )


class HeteGMI(StructureAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = HeteGMIConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"steps": 40, "step_size": 1.0}, "paper": {},
    }  # fmt: skip
    config: HeteGMIConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Search the edges.

        Raises: UsageError for evidence without labels, or of a large graph of which only some pairs are asked about;
        ModelError for a target without graph convolutions.
        """
        known = known_of(case)
        require_all_pairs("hete-gmi", known)
        search = _Search(self.config, target.module, known, Labelled.of(known, self.config.known, case, runtime))
        counts = known.kinds or (known.n_edges,)
        most = [2 * self.config.budget * count for count in counts]  # each edge stands there twice
        start = torch.stack([even(known.n_nodes, total, runtime.device) for total in most])
        if not self.config.even:
            start = torch.zeros_like(start)
        descent = descend(
            by_autograd(search.loss), start if known.kinds else start[0], steps=self.config.steps,
            step_size=self.config.step_size, most=most if known.kinds else most[0],
        )  # fmt: skip
        scores, problem = search.decoded(descent)
        return Found(scores, problem, {"loss": descent.losses})


@dataclass(frozen=True)
class _Search:
    """The search for one graph."""

    config: HeteGMIConfig
    module: CountedModule
    known: Known
    labelled: Labelled

    def loss(self, edges: Tensor, _step: int) -> Tensor:
        """Return the objective at a relaxed adjacency."""
        (first, *_), logits = layers_of(self.module, relaxed_nodes(self.known.features, edges))
        nodes = functional.normalize(first.detach().relu(), dim=1)
        loss = self.labelled.loss(logits) + self.config.sparsity * sparsity(edges)
        near = self.config.first_order * first_order(edges, nodes)
        near = near + self.config.second_order * second_order(edges, nodes)
        return loss - near / self.known.n_nodes

    @torch.no_grad()
    def decoded(self, descent: Descent) -> tuple[Tensor, BudgetExceeded | None]:
        """Return the scores of all pairs (p,), and what stopped the search or this; then the edges themselves serve."""
        found = values_of_pairs(descent.edges.amax(dim=0) if self.known.kinds else descent.edges)
        if descent.problem is not None or self.config.decode == "edges":
            return found, descent.problem
        try:
            return encoded(self.module, self.known.features, descent.edges), None
        except BudgetExceeded as error:
            return found, error


def even(n: int, total: float, device: torch.device) -> Tensor:
    """Return equal values of all pairs, (n, n), that sum up to ``total``."""
    values = torch.full((n, n), min(1.0, total / max(1, n * (n - 1))), device=device)
    return values.fill_diagonal_(0)


def first_order(edges: Tensor, nodes: Tensor) -> Tensor:
    """Return the sum over edges of how alike their nodes are; edges: (..., n, n); nodes: of length 1, (n, d)."""
    return (nodes * (edges @ nodes)).sum() / 2


def second_order(edges: Tensor, nodes: Tensor) -> Tensor:
    """Return the sum over nodes of how alike their neighbours are, pair by pair and each to itself, over their number.

    edges: (..., n, n); nodes: features of length 1, (n, d).
    """
    around = edges @ nodes
    return (around.square().sum(dim=-1) / (edges.sum(dim=-1) + 1e-3)).sum()
