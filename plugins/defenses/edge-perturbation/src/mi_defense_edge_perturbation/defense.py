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
from torch import Tensor, nn

from mi_defense_edge_perturbation.perturbing import noisy, randomised, swapped
from mi_graph.graphs import Graph
from mi_graph.networks import GraphNetwork, RelationalNetwork
from micore.contracts import Config, Defense
from micore.errors import ModelError
from micore.kit.training import Trainer
from micore.runtime import Random


class PrivateEdgesConfig(Config):
    """Settings of the mechanisms of differential privacy."""

    epsilon: float = Field(8.0, gt=0, description="privacy budget for each edge")


class SwapConfig(Config):
    """Settings of swaps."""

    share: float = Field(0.5, ge=0, le=1, description="of the edges that change partners")


class ChangedEdges(Defense):
    """Base: the network works on changed edges wherever it is asked about its own graph."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._edges: Tensor | None = None

    def changed(self, graph: Graph, rng: Random) -> Tensor:
        """Return the edges (2, m) that take the place of a graph's."""
        raise NotImplementedError

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Let the network ask for the edges of its own graph.

        Raises: ModelError for another network than those of `mi_graph.networks`, and for one of whole graphs.
        """
        if not isinstance(module, GraphNetwork):
            raise ModelError(f"{type(module).__name__} is no network of mi-graph: its edges cannot be changed")
        if isinstance(module, RelationalNetwork):
            raise ModelError("changed edges have no kinds, which the network tells apart", hint="gcn, sage, gat or gin")
        if module.head is not None:
            raise ModelError(
                "the edges of one private graph are changed; this network classifies many", hint="leave --defense out"
            )
        module.own_edges = self.edges
        return module

    def adapt_training(self, trainer: Trainer) -> None:
        """Change the edges of the training graph, from the seed of the training.

        Raises: ModelError for a graph that is too large.
        """
        graph = trainer.split.take([0]).graphs[0]
        source = trainer.runtime.rng("changed-edges", trainer.purpose)
        self._edges = self.changed(graph, Random(source.seed()))  # graphs are on the CPU

    def edges(self) -> Tensor | None:
        """Return the changed edges, int64 (2, m); None before the training."""
        return self._edges

    def state(self) -> Mapping[str, Tensor]:
        """Return the changed edges."""
        return {} if self._edges is None else {"edges": self._edges}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the changed edges back."""
        self._edges = state.get("edges")

    def facts(self) -> Mapping[str, Any]:
        """Return how many edges there are now."""
        return {} if self._edges is None else {"edges": self._edges.shape[1]}


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
