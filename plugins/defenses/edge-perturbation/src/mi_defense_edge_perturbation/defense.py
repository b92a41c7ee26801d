"""Defenses that train a graph network, and answer, on changed edges of its graph.

Wu, Long, Zhang, Li: "LinkTeller", IEEE S&P 2022 (arXiv:2108.06504), section VI: EdgeRand and LapGraph, mechanisms of
edge differential privacy.

The edges are changed once, before the training; the network is trained on the changed ones, and from then on whoever
asks about nodes of the private graph gets answers on them. The bundle holds them: with differential privacy they may
be known.

Fidelity notes (paper / authors' code / here)
- EdgeRand: a pair is replaced by a fair coin with chance 2 / (1 + e^eps) / the same / randomised response with the same
  chances. LapGraph: a hundredth of eps for the number of edges, the rest for the pairs / the same / the same.
- The answers: on the changed edges / the same / the same; an adversary with white-box access reads these, too.
- ``degree-preserving`` promises no differential privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from mi_defense_edge_perturbation.perturbing import noisy, randomised, swapped
from mi_graph.changed_edges import ChangedEdges
from mi_graph.graphs import Graph
from micore.contracts import Config
from micore.runtime import Random


class PrivateEdgesConfig(Config):
    """Settings of the mechanisms of differential privacy."""

    epsilon: float = Field(8.0, gt=0, description="privacy budget for each edge")


class SwapConfig(Config):
    """Settings of swaps."""

    share: float = Field(0.5, ge=0, le=1, description="of the edges that change partners")


class EdgeRand(ChangedEdges):
    """Randomised response for each pair."""

    Config: ClassVar[type[Config]] = PrivateEdgesConfig
    config: PrivateEdgesConfig

    def changed(self, graph: Graph, rng: Random) -> Tensor:
        """Return edges after randomised response."""
        return randomised(graph, self.config.epsilon, rng)

    def facts(self) -> Mapping[str, Any]:
        """Return the budget and how many edges there are now."""
        return {"epsilon": self.config.epsilon, **super().facts()}


class LapGraph(ChangedEdges):
    """The likeliest pairs under Laplace noise."""

    Config: ClassVar[type[Config]] = PrivateEdgesConfig
    config: PrivateEdgesConfig

    def changed(self, graph: Graph, rng: Random) -> Tensor:
        """Return the likeliest edges under noise."""
        return noisy(graph, self.config.epsilon, rng)

    def facts(self) -> Mapping[str, Any]:
        """Return the budget and how many edges there are now."""
        return {"epsilon": self.config.epsilon, **super().facts()}


class DegreePreserving(ChangedEdges):
    """Edges that change partners. There is no paper: swaps are a common null model of graphs."""

    Config: ClassVar[type[Config]] = SwapConfig
    config: SwapConfig

    def changed(self, graph: Graph, rng: Random) -> Tensor:
        """Return edges after swaps."""
        return swapped(graph, self.config.share, rng)
