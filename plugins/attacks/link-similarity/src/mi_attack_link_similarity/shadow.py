"""Networks of the adversary's own: a shadow target on a public graph, and a reference without a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.adapter import TASK, GraphAdapter
from mi_graph.batch import Graphs
from mi_graph.graphs import Graph, n_pairs
from mi_graph.networks import gcn
from micore.contracts import Split
from micore.errors import DataError
from micore.inputs import InputSpec
from micore.runtime import Runtime

PER_CLASS = 20
"""Nodes of each class that a shadow learns from, at most half of them (paper: the citation graphs' own)."""


@dataclass(frozen=True)
class Fit:
    """How networks are trained, all nodes at once (authors' code: 100 epochs, Adam at 1e-2, L2 of 5e-4)."""

    steps: int
    learning_rate: float
    weight_decay: float = 5e-4

    def descend(self, network: nn.Module, loss: Callable[[], Tensor]) -> None:
        """Take the steps."""
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()


def public_nodes(attack: int, public: Split | None) -> tuple[Graph, Graphs, Tensor | None]:
    """Return the public graph, all its nodes, and their classes where these are known.

    Raises: DataError without such a graph, or where edges tell nothing.
    """
    nodes = public.take(range(len(public))) if public is not None and len(public) else None
    if public is None or nodes is None:
        raise DataError(f"attack {attack} of link-similarity needs a public graph", hint="give data that have one")
    graph: Graph = nodes.graphs[0]
    if not 0 < graph.n_edges < n_pairs(graph.n_nodes):
        raise DataError(f"attack {attack} of link-similarity needs a public graph that has edges and other pairs")
    return graph, nodes, public.labels


def shadow_answers(graph: Graph, nodes: Graphs, labels: Tensor, hidden: int, fit: Fit, runtime: Runtime) -> Tensor:
    """Train a GCN on some nodes of a public graph and return what it answers to all nodes, (n, classes)."""
    spec = InputSpec(shape=(graph.features.shape[1],), options={TASK: "node"})
    with runtime.seeded("link-similarity", "shadow"):
        network = gcn(int(labels.max()) + 1, spec, width=hidden)
    runtime.place(network)
    rows = learned_from(labels, runtime)
    some = GraphAdapter(spec)(Graphs.nodes_of(graph, nodes.nodes[rows])).to(runtime.device)
    wanted = labels[rows].to(runtime.device)
    with runtime.seeded("link-similarity", "shadow", "dropout"):
        fit.descend(network.train(), lambda: functional.cross_entropy(network(some), wanted))
    everything = GraphAdapter(spec)(Graphs.nodes_of(graph)).to(runtime.device)
    with torch.no_grad():
        return network.eval()(everything).softmax(dim=1)


def learned_from(labels: Tensor, runtime: Runtime) -> Tensor:
    """Draw so many nodes of each class, at most half of them; return their rows."""
    order = runtime.rng("link-similarity", "shadow", "nodes").permutation(len(labels))
    order = order[labels[order].argsort(stable=True)]  # class after class, each in a random order
    sizes = labels.bincount()
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    return order[rank < ((sizes + 1) // 2).clamp(max=PER_CLASS)[labels[order]]]


def reference_answers(
    features: Tensor, answers: Tensor, hidden: int, fit: Fit, runtime: Runtime, *purpose: object
) -> Tensor:
    """Return what a perceptron answers (n, classes) that has learned the likeliest classes from features alone."""
    labels, (width, n_classes) = answers.argmax(dim=1), (features.shape[1], answers.shape[1])
    with runtime.seeded("link-similarity", "reference", *purpose):
        network = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))
    runtime.place(network)
    fit.descend(network, lambda: functional.cross_entropy(network(features), labels))
    with torch.no_grad():
        found: Tensor = network(features).softmax(dim=1)
    return found
