"""Edges from node embeddings, by a decoder that was learned on another graph.

Duddu, Boutet, Shejwalkar: "Quantifying Privacy Leakage in Graph Embedding", MobiQuitous 2020 (arXiv:2010.00906): graph
reconstruction from embeddings. Shen et al., "Finding MNEMON" (arXiv:2204.06963), knows embeddings and another graph.

Threat model: an interface that gives hidden features of nodes, of its private graph and of graphs that it is sent; a
public graph of the same kind.

1. The target embeds the nodes of the public graph.
2. A perceptron learns from these which pairs are edges: of abs(a - b) and a * b of two embeddings, on all edges and as
   many other pairs, drawn anew at each step.
3. It reads the embeddings of the private nodes; all pairs are ranked.

Fidelity notes (paper / authors' code / here)
- The decoder: an inner product of a graph auto-encoder's features, which needs edges of the attacked graph / trained on
  60 % of its edges, so that it is link prediction / a perceptron of embeddings, learned on another graph alone.
- Embeddings are standardised by the public ones.
- MNEMON has no public code; its graph auto-encoder, trained on a nearest-neighbour graph, is not here.

Targets that classify whole graphs, and give embeddings of them: see `mi_attack_embedding_to_graph.whole_graphs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_attack_embedding_to_graph import whole_graphs
from mi_graph.attack import Found, StructureAttack, ask_nodes, filled
from mi_graph.batch import Graphs
from mi_graph.cases import known_of
from mi_graph.graphs import Graph
from mi_graph.networks import EMBED
from mi_graph.similarity import scores_of
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

ELEMENTS = 1 << 22
"""Hidden values of the decoder at once."""


class PrepareConfig(whole_graphs.WholePrepareConfig):
    """Settings of the decoder."""

    hidden: int = Field(32, ge=1, description="width of the decoder")
    steps: int = Field(400, ge=1, description="steps of its training")
    learning_rate: float = Field(1e-2, gt=0, description="of its Adam")


class EmbeddingToGraphConfig(PrepareConfig, whole_graphs.WholeConfig):
    """Settings of the attack."""

    evidence: Literal["features", "labels", "size"] | None = Field(
        None,
        description="what is known: of nodes features, or labels as well, which floors use; of whole graphs the size",
    )


class EmbeddingToGraph(StructureAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = EmbeddingToGraphConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"steps": 150, "graph_steps": 150},
        "paper": {"method": "decoded", "matchings": 10},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(PrepareConfig.model_fields)
    config: EmbeddingToGraphConfig

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Let the target embed the public graph, and learn to read its edges.

        Raises: DataError without a public graph that has edges; BudgetExceeded.
        """
        if public is not None and whole_graphs.are_whole(public):
            return whole_graphs.prepare(self.config, target, public, runtime)
        graph = public.take([0]).graphs[0] if public is not None and len(public) else None
        if graph is None or not graph.n_edges:
            raise DataError(
                "embedding-to-graph learns from the edges of a public graph", hint="give data that have one"
            )
        values = target.ask(EMBED, Graphs.nodes_of(graph)).float()
        statistics = {"mean": values.mean(dim=0), "deviation": values.std(dim=0).clamp(min=1e-6)}
        with runtime.seeded("embedding-to-graph", "decoder"):
            decoder = self._decoder(values.shape[1])
        self._learn(runtime.place(decoder), _standard(values, statistics), graph, runtime)
        weights = {name: tensor.detach().cpu() for name, tensor in decoder.state_dict().items()}
        return Prepared(state={"weights": weights, **{name: part.cpu() for name, part in statistics.items()}})

    def _decoder(self, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(2 * width, self.config.hidden), nn.ReLU(), nn.Linear(self.config.hidden, 1))

    def _learn(self, decoder: nn.Module, values: Tensor, graph: Graph, runtime: Runtime) -> None:
        edges, n = graph.edges.to(values.device), graph.n_nodes
        truth = torch.cat([torch.ones(graph.n_edges), torch.zeros(graph.n_edges)]).to(values.device)
        optimizer = torch.optim.Adam(decoder.parameters(), self.config.learning_rate, weight_decay=1e-3)
        with runtime.progress.track("decoder", self.config.steps) as report:
            for step in range(self.config.steps):
                others = runtime.rng("embedding-to-graph", "others", step).integers(n, tuple(edges.shape))
                pairs = torch.cat([edges, others.to(edges.device)], dim=1)
                loss = functional.binary_cross_entropy_with_logits(
                    decoder(_features(values[pairs[0]], values[pairs[1]])).squeeze(1), truth
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                report(step + 1)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Recover the graph of each case, from its nodes' embeddings or, of many graphs, from its own.

        Raises: DataError before `prepare`; BudgetExceeded, after what was found until then.
        """
        if prepared is not None and whole_graphs.is_prepared(prepared):
            yield from whole_graphs.run(self.config.method, target, cases, prepared, runtime)
        else:
            yield from super().run(target, cases, prepared, runtime)

    @torch.no_grad()
    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Read the edges from the embeddings of the nodes; nodes without one count as embedded like the mean.

        Raises: DataError before `prepare`.
        """
        if prepared is None:
            raise DataError("embedding-to-graph was not prepared")
        statistics = {name: prepared.state[name].to(runtime.device) for name in ("mean", "deviation")}
        decoder = self._restored(prepared, runtime)
        known = known_of(case)
        found, problem = ask_nodes(target, known, known.n_nodes, EMBED)
        values = _standard(filled(found, known.n_nodes, statistics["mean"]), statistics)
        pairs = None if known.pairs is None else known.pairs.to(values.device)
        return Found(scores_of(values, lambda one, two: _decoded(decoder, one, two), pairs), problem)

    def _restored(self, prepared: Prepared, runtime: Runtime) -> nn.Module:
        with runtime.seeded("embedding-to-graph", "restored"):
            decoder = self._decoder(len(prepared.state["mean"]))
        decoder.load_state_dict(dict(prepared.state["weights"]))
        return runtime.place(decoder)

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return what the attack gives of whole graphs without their embeddings; of nodes nothing."""
        if prepared is None or not whole_graphs.is_prepared(prepared):
            return {}
        return whole_graphs.baselines(self.config.method, cases, prepared, runtime)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the public nodes; a query for each private node or graph comes on top."""
        return Forecast(preparation=Spending(queries=n_public), per_case=Spending())


def _standard(values: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
    return (values - statistics["mean"]) / statistics["deviation"]


def _features(one: Tensor, two: Tensor) -> Tensor:
    """Return what the decoder sees of two embeddings, the same in either order."""
    return torch.cat([(one - two).abs(), one * two], dim=-1)


def _decoded(decoder: nn.Module, one: Tensor, two: Tensor) -> Tensor:
    """Return the decoder's logits of all rows against all others, (a, b), so many rows at once as memory allows."""
    rows = max(1, ELEMENTS // max(1, two.numel()))
    parts = [
        decoder(_features(*torch.broadcast_tensors(some[:, None], two[None]))).squeeze(2) for some in one.split(rows)
    ]
    return torch.cat(parts)
