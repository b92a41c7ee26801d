"""Whole graphs from their embeddings, by a decoder that was learned on public graphs.

Zhang, Chen, Backes, Shen, Zhang: "Inference Attacks Against Graph Neural Networks", USENIX Security 2022
(arXiv:2110.02631): graph reconstruction, with the decoder of GraphVAE (arXiv:1802.03480).

Threat model: an interface that gives the embedding of a graph that it is sent, and of a private one that is named; the
number of nodes of the private graph; public graphs of the same kind.

1. The target embeds the public graphs.
2. A perceptron learns to give from each embedding, and the number of nodes, which pairs of nodes are edges.
3. It reads the embedding of each private graph. ``likeliest-public``: of the public graphs whose number of nodes is
   nearest the one that it finds likeliest. ``decoded``: its likeliest edges, as many as it expects. ``nearest-public``
   does without it: of the same public graphs the one whose embedding is nearest.

Fidelity notes (paper / authors' code / here)
- What is given back: edges drawn with the decoder's chances / the same / a public graph, or with ``decoded`` the
  likeliest edges: drawn ones are less alike to the private graph (README).
- The order of nodes: matched to the decoder's, max-pooling and Hungarian / the same at each step / breadth-first from
  the node with the most edges, with ``matchings`` matched anew so many times. Matching is worse here (README).
- The decoder: of a graph auto-encoder, then tuned on the target's embeddings / 250, 100 / the same sizes, on the
  target's embeddings alone. The number of nodes: decoded / decoded / known, and given to the decoder.
- Learning rate: not said / halved every 10 batches, and so 0 within an epoch / constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_attack_embedding_to_graph.ordering import breadth_first, matched, matrix
from mi_graph.batch import WHOLE, Graphs
from mi_graph.evidence import KnownGraph
from mi_graph.graphs import Graph, all_pairs, likeliest
from mi_graph.networks import EMBED
from mi_graph.whole_cases import known_graph_of, recovered
from micore.contracts import Case, Config, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.measuring import batches_of
from micore.runtime import Runtime
from micore.target import Target

KEY = "whole"
"""Where it stands in what was prepared."""

HIDDEN = (250, 100)
LARGEST = 256
"""Nodes of the largest public graph that is learned from: the decoder gives all pairs at once."""

BATCH = 1024
"""Public graphs that are sent at once."""

Method = Literal["likeliest-public", "nearest-public", "decoded"]


class WholePrepareConfig(Config):
    """Settings of the decoder of whole graphs."""

    graph_steps: int = Field(300, ge=1, description="whole graphs: steps of the decoder's training, on all at once")
    graph_learning_rate: float = Field(1e-3, gt=0, description="whole graphs: of its Adam")
    matchings: int = Field(
        0, ge=0,
        description="whole graphs: how often nodes are matched anew to what it gives; 0: they stay breadth-first",
    )  # fmt: skip


class WholeConfig(WholePrepareConfig):
    """Settings of the attack on whole graphs."""

    method: Method = Field(
        "likeliest-public", description="whole graphs: what is given back, a public graph or the decoder's own edges"
    )


def are_whole(split: Split | None) -> bool:
    """Tell whether samples are whole graphs."""
    return split is not None and len(split) > 0 and bool((split.take([0]).nodes == WHOLE).all())


# preparing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Public:
    """Public graphs as the decoder learns them.

    embeddings (G, d); edges: which pairs of the first N nodes are edges, float32 (G, N (N - 1) / 2); sizes: int64 (G,).
    """

    embeddings: Tensor
    edges: Tensor
    sizes: Tensor

    @property
    def n(self) -> int:
        """N, the nodes of the largest."""
        return int(self.sizes.max())

    @property
    def mean(self) -> Tensor:
        """Of the embeddings, (d,)."""
        return self.embeddings.mean(dim=0)

    @property
    def deviation(self) -> Tensor:
        """Of the embeddings, (d,)."""
        return self.embeddings.std(dim=0, correction=0).clamp(min=1e-6)

    def standard(self, values: Tensor) -> Tensor:
        """Return embeddings (B, d) with the mean and the deviation of the public ones at 0 and 1."""
        return (values - self.mean) / self.deviation

    def inputs(self, values: Tensor, sizes: Tensor) -> Tensor:
        """Return what the decoder takes: standardised embeddings (B, d), and the number of nodes, one-hot."""
        return torch.cat([self.standard(values), functional.one_hot(sizes.clamp(max=self.n), self.n + 1)], dim=1)

    def graph(self, row: int) -> Graph:
        """Return one of the graphs, without features."""
        pairs = all_pairs(self.n)[:, self.edges[row].cpu() > 0]
        return Graph(torch.empty(int(self.sizes[row]), 0), pairs)


def prepare(config: WholePrepareConfig, target: Target, split: Split, runtime: Runtime) -> Prepared:
    """Let the target embed the public graphs, and learn to read them.

    Raises: DataError without a public graph that has edges and is small enough; BudgetExceeded.
    """
    graphs = [graph for graph in split.take(range(len(split))).graphs if 1 < graph.n_nodes <= LARGEST]
    if not any(graph.n_edges for graph in graphs):
        raise DataError(f"embedding-to-graph learns from public graphs of 2 to {LARGEST} nodes with edges: none here")
    asked = batches_of(Graphs.whole(graphs), BATCH)
    values = torch.cat([target.ask(EMBED, part).float() for part in asked])
    n = max(graph.n_nodes for graph in graphs)
    one, two = all_pairs(n)
    edges = torch.stack([matrix(graph, breadth_first(graph), n)[one, two] for graph in graphs])
    sizes = torch.tensor([graph.n_nodes for graph in graphs], device=values.device)
    public = Public(values, edges.to(values.device), sizes)
    with runtime.seeded("embedding-to-graph", "graph-decoder"):
        decoder = _decoder(public)
    public = _learn(runtime.place(decoder), public, config, runtime)
    return Prepared(state={KEY: {
        "weights": {name: tensor.detach().cpu() for name, tensor in decoder.state_dict().items()},
        "embeddings": public.embeddings.cpu(), "edges": public.edges.bool().cpu(), "sizes": public.sizes.cpu(),
    }})  # fmt: skip


def _decoder(public: Public) -> nn.Sequential:
    width, n_pairs = public.embeddings.shape[1] + public.n + 1, public.edges.shape[1]
    return nn.Sequential(
        nn.Linear(width, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(),
        nn.Linear(HIDDEN[1], n_pairs),
    )  # fmt: skip


def _learn(decoder: nn.Module, public: Public, config: WholePrepareConfig, runtime: Runtime) -> Public:
    """Train the decoder; return the public graphs with their nodes in the last order."""
    counted = (all_pairs(public.n, public.sizes.device)[1] < public.sizes[:, None]).float()
    weights = counted / counted.sum(dim=1, keepdim=True) / len(counted)  # every graph counts alike
    inputs = public.inputs(public.embeddings, public.sizes)
    optimizer = torch.optim.Adam(decoder.parameters(), config.graph_learning_rate, weight_decay=1e-4)
    span = -(-config.graph_steps // (config.matchings + 1))
    with runtime.progress.track("decoder of graphs", config.graph_steps) as report:
        for step in range(config.graph_steps):
            if step and step % span == 0:
                public = _rematched(public, decoder(inputs).detach().sigmoid() * counted)
            losses = functional.binary_cross_entropy_with_logits(decoder(inputs), public.edges, reduction="none")
            optimizer.zero_grad(set_to_none=True)
            (losses * weights).sum().backward()
            optimizer.step()
            report(step + 1)
    return public


def _rematched(public: Public, chances: Tensor) -> Public:
    one, two = all_pairs(public.n, chances.device)
    both = []
    for values in (public.edges, chances):
        dense = values.new_zeros(len(values), public.n, public.n)
        dense[:, one, two] = dense[:, two, one] = values
        both.append(dense)
    return replace(public, edges=matched(*both, public.sizes)[:, one, two])


# attacking --------------------------------------------------------------------------------------------------------


def is_prepared(prepared: Prepared) -> bool:
    """Tell whether it was prepared for whole graphs."""
    return KEY in prepared.state


@torch.no_grad()
def run(
    method: Method, target: Target, cases: Sequence[Case], prepared: Prepared, runtime: Runtime
) -> Iterator[Reconstruction]:
    """Read each case's graph from its embedding.

    Raises: UsageError for cases of single nodes; BudgetExceeded when a graph cannot be paid.
    """
    public, decoder = _restored(prepared.state[KEY], runtime)
    for case in cases:
        known, problem = known_graph_of(case), None
        try:
            with target.ledger.owned_by([case.id]):
                values = target.ask(EMBED, known.graph()).float()
        except BudgetExceeded as error:
            problem, values = error, public.mean[None]
        yield replace(recovered(case, _read(method, public, decoder, values, known)), complete=problem is None)
        if problem is not None:
            raise problem


@torch.no_grad()
def baselines(
    method: Method, cases: Sequence[Case], prepared: Prepared, runtime: Runtime
) -> dict[str, list[Reconstruction]]:
    """Return ``mean-embedding``: what the attack gives of the size and the mean public embedding, asking nobody."""
    public, decoder = _restored(prepared.state[KEY], runtime)
    found = [_read(method, public, decoder, public.mean[None], known_graph_of(case)) for case in cases]
    return {"mean-embedding": [recovered(case, graph) for case, graph in zip(cases, found, strict=True)]}


def _restored(state: Mapping[str, Any], runtime: Runtime) -> tuple[Public, nn.Module]:
    parts = {name: state[name].to(runtime.device) for name in ("embeddings", "edges", "sizes")}
    public = Public(parts["embeddings"], parts["edges"].float(), parts["sizes"])
    with runtime.seeded("embedding-to-graph", "restored"):
        decoder = _decoder(public)
    decoder.load_state_dict(dict(state["weights"]))
    return public, runtime.place(decoder)


def _read(method: Method, public: Public, decoder: nn.Module, values: Tensor, known: KnownGraph) -> Graph:
    """Return the graph that is read from an embedding (1, d)."""
    if method == "nearest-public":
        return public.graph(_of_size(-torch.cdist(public.standard(values), public.standard(public.embeddings))[0],
                                     public, known))  # fmt: skip
    logits = decoder(public.inputs(values, torch.tensor([known.n_nodes], device=values.device)))[0]
    inside = all_pairs(public.n, logits.device)[1] < known.n_nodes
    if method == "likeliest-public":
        losses = functional.binary_cross_entropy_with_logits(
            logits.expand_as(public.edges), public.edges, reduction="none"
        )
        return public.graph(_of_size(-losses[:, inside].sum(dim=1), public, known))
    chances = logits[inside].sigmoid().cpu()
    n_edges = int(chances.sum().round())
    edges = likeliest(chances, min(known.n_nodes, public.n), n_edges)
    return Graph(torch.empty(known.n_nodes, 0), edges)


def _of_size(scores: Tensor, public: Public, known: KnownGraph) -> int:
    """Return the row of the highest score (G,) among public graphs whose number of nodes is nearest."""
    distances = (public.sizes - known.n_nodes).abs()
    return int(scores.masked_fill(distances > distances.min(), -torch.inf).argmax())
