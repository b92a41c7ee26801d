"""What defenses share that put other edges in the place of those of the target's own graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mi_graph.graphs import Graph
from mi_graph.networks import GraphNetwork, RelationalNetwork
from micore.contracts import Defense
from micore.errors import ModelError
from micore.kit.training import Trainer
from micore.runtime import Random


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
