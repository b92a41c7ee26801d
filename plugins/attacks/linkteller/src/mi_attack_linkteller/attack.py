"""LinkTeller: edges from the influence of one node's features on another's answer.

Wu, Long, Zhang, Li: "LinkTeller: Recovering Private Edges from Graph Neural Networks via Influence Analysis", IEEE S&P
2022 (arXiv:2108.06504).

Threat model: an interface that answers about nodes of its private graph for features that its caller gives, as where
one party holds the features and another the edges.

The features of one node are scaled by 1 + ``delta`` and all nodes are asked about; how far an answer moves, over delta,
is the influence on its node (section IV). Two nodes are joined where they influence each other. Beyond as many steps as
the network has layers the influence is exactly none.

Fidelity notes (paper / authors' code / here)
- A pair's score is one direction's influence / the same / the sum of both (``directions=max``: the larger).
- The change is 1e-4, at which answers in single precision lose their digits / the same / 0.5: what does not move is
  exactly 0 at any size, and what moves is told apart from rounding.
- Nodes of interest, 500 / the same / all nodes, or those of the pairs that the evidence asks for.
- A number of edges is estimated / given as a factor of the true one / all pairs are ranked.
- A node without features cannot be scaled, so that its influence is unknown and counts as none; ``change=add`` (ours)
  adds the mean features of all nodes instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_graph.attack import Found, StructureAttack
from mi_graph.batch import Graphs
from mi_graph.cases import known_of
from mi_graph.evidence import Known
from mi_graph.graphs import Graph
from micore.contracts import Case, Config, Prepared
from micore.errors import BudgetExceeded
from micore.runtime import Runtime
from micore.target import Target


class LinkTellerConfig(Config):
    """Settings of LinkTeller."""

    evidence: Literal["features", "labels"] = Field(
        "features", description="what is known; the attack uses no labels, its floors do"
    )
    change: Literal["scale", "add"] = Field("scale", description="scale: its own features (paper); add: mean ones")
    delta: float = Field(0.5, gt=0, description="by how much features are scaled up (paper: 1e-4)")
    directions: Literal["sum", "max"] = Field("sum", description="what becomes of the influences of a pair")
    copies: int = Field(8, ge=1, description="changed graphs that are asked about at once")


class LinkTeller(StructureAttack):
    """The attack LinkTeller (see the module's documentation)."""

    Config: ClassVar[type[Config]] = LinkTellerConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {"delta": 1e-4}}
    config: LinkTellerConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Change the features of every node in turn; nodes that were not changed count as without influence."""
        known = known_of(case)
        influence, problem = self._influences(target, known, runtime)
        return Found(self._of_pairs(influence, known.asked().to(influence.device)), problem)

    def _influences(self, target: Target, known: Known, runtime: Runtime) -> tuple[Tensor, BudgetExceeded | None]:
        """Return the influence of each node on each, (n, n), by rows, and what stopped the asking."""
        n = known.n_nodes
        influence = torch.zeros(n, n, device=runtime.device)
        rows = known.asked().unique()
        try:
            plain = target.scores(known.nodes()).float()
            with runtime.progress.track("influences", len(rows)) as report:
                for part in rows.split(self.config.copies):
                    answers = target.scores(self._changed(known, part)).float().view(len(part), n, -1)
                    influence[part.to(influence.device)] = (answers - plain).norm(dim=2) / self.config.delta
                    report(int(part[-1]) + 1)
        except BudgetExceeded as error:
            return influence, error
        return influence, None

    def _changed(self, known: Known, rows: Tensor) -> Graphs:
        """Name all nodes of so many graphs, in each of which the features of one node are changed."""
        n, mean, graphs = known.n_nodes, known.features.mean(dim=0), []
        for row in rows.tolist():
            features = known.features.clone()
            features[row] += self.config.delta * (features[row] if self.config.change == "scale" else mean)
            graphs.append(Graph.named(features))
        owners = torch.arange(len(graphs)).repeat_interleave(n)
        return Graphs(tuple(graphs), owners, torch.arange(n).repeat(len(graphs)))

    def _of_pairs(self, influence: Tensor, pairs: Tensor) -> Tensor:
        one, two = influence[pairs[0], pairs[1]], influence[pairs[1], pairs[0]]
        return one + two if self.config.directions == "sum" else torch.maximum(one, two)
