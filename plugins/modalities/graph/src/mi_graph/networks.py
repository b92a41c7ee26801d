"""Graph networks that classify nodes or graphs, on PyTorch Geometric's convolutions.

GCN: Kipf and Welling, ICLR 2017. GraphSAGE with mean aggregation: Hamilton, Ying and Leskovec, NeurIPS 2017. GAT:
Velickovic et al., ICLR 2018. GIN: Xu et al., ICLR 2019. R-GCN: Schlichtkrull et al., ESWC 2018.

Each convolution takes edges, int64 (2, E), or a relaxed adjacency, float (N, N), for R-GCN (k, N, N) for k kinds of
edges: entry (i, j) says how much of an edge there is, gradients flow through it, and with entries 0 and 1 both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.adapter import EDGE_KINDS, TASK, GraphInputs
from mi_graph.pyg import GATConv, GCNConv, GINConv, RGCNConv, SAGEConv, global_mean_pool
from micore.errors import ModelError, UsageError
from micore.inputs import InputSpec
from micore.threat import Access


class GCN(GCNConv):  # type: ignore[misc]
    """Neighbours and the node itself, weighted by the square roots of their degrees."""

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return features (N, out) of features (N, width)."""
        if not edges.is_floating_point():
            return super().forward(features, edges)
        scale = (edges.sum(dim=1) + 1).rsqrt()[:, None]
        values = scale * self.lin(features)
        return scale * (edges @ values + values) + self.bias


class SAGE(SAGEConv):  # type: ignore[misc]
    """The mean of the neighbours beside the node itself."""

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return features (N, out) of features (N, width)."""
        if not edges.is_floating_point():
            return super().forward(features, edges)
        mean = edges @ features / edges.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return self.lin_l(mean) + self.lin_r(features)


class GAT(GATConv):  # type: ignore[misc]
    """Neighbours weighted by attention."""

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return features (N, out) of features (N, width)."""
        if not edges.is_floating_point():
            return super().forward(features, edges)
        values = self.lin(features)
        source, target = ((values * part[0]).sum(dim=1) for part in (self.att_src, self.att_dst))
        attention = functional.leaky_relu(target[:, None] + source[None, :], self.negative_slope)
        present = edges + torch.eye(len(edges), device=edges.device)
        highest = attention.masked_fill(present == 0, -torch.inf).amax(dim=1, keepdim=True)
        share = present * (attention - highest.detach()).clamp(max=30).exp()
        return share / share.sum(dim=1, keepdim=True) @ values + self.bias


class GIN(GINConv):  # type: ignore[misc]
    """The sum of the neighbours and the node itself, through a perceptron."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(width, out), nn.ReLU(), nn.Linear(out, out)))

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return features (N, out) of features (N, width)."""
        if not edges.is_floating_point():
            return super().forward(features, edges)
        return self.nn((1 + self.eps) * features + edges @ features)


class RGCN(RGCNConv):  # type: ignore[misc]
    """The means of the neighbours by each kind of edge, each kind with weights of its own, beside the node itself."""

    def forward(self, features: Tensor, edges: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Return features (N, out) of features (N, width); edges: with their kinds, or relaxed, (k, N, N)."""
        if not isinstance(edges, Tensor):
            return super().forward(features, *edges)
        means = edges @ features / edges.sum(dim=2, keepdim=True).clamp(min=1e-6)
        return (means @ self.weight).sum(dim=0) + features @ self.root + self.bias


Kind = Callable[[int, int], nn.Module]


EMBED, EXPLAIN = "embed", "explain"
"""Services: hidden features of nodes or graphs; which of nodes' features the answers rest on."""


class GraphNetwork(nn.Module):
    """Convolutions, then one logit for each class: of nodes by a last convolution, of graphs by their mean node.

    Its interface also gives hidden features, of a graph those of its mean node, and of nodes explanations. sizes:
    features of a node, width, classes.
    """

    services: ClassVar[Mapping[str, Access]] = {EMBED: Access.SCORES, EXPLAIN: Access.SCORES}

    def __init__(
        self, kind: Kind, n_features: int, n_classes: int, task: str, *, width: int,
        layers: int, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [n_features, *[width] * (layers - 1)]
        last = n_classes if task == "node" else width
        self.convolutions = nn.ModuleList(kind(a, b) for a, b in zip(widths, [*widths[1:], last], strict=True))
        self.head = nn.Linear(width, n_classes) if task == "graph" else None
        self.dropout = dropout
        self.sizes = n_features, width, n_classes
        self.own_edges: Callable[[], Tensor | None] | None = None

    def serve(self, name: str, inputs: GraphInputs, **options: Any) -> Tensor:
        """Return the hidden features (B, width) of nodes or graphs, or explanations (B, F) of nodes.

        Raises: UsageError for explanations of whole graphs.
        """
        if name == EMBED:
            return self._pooled(inputs) if inputs.rows is None else self._hidden(inputs)[inputs.rows]
        if inputs.rows is None:
            raise UsageError(f"{name} is there for nodes, not for whole graphs")
        return self._explained(inputs, inputs.rows)

    def _hidden(self, inputs: GraphInputs) -> Tensor:
        values, edges = inputs.features, self._edges(inputs)
        for conv in list(self.convolutions)[:-1]:
            values = functional.relu(conv(values, edges))
        return values

    def _pooled(self, inputs: GraphInputs) -> Tensor:
        """Return what the last layer sees of whole graphs: the mean over nodes of what the convolutions give."""
        pooled: Tensor = global_mean_pool(functional.relu(self._convolved(inputs)), inputs.graph_of, inputs.n_graphs)
        return pooled

    def _explained(self, inputs: GraphInputs, rows: Tensor) -> Tensor:
        """Return how much each feature speaks for the likeliest class of each node, whichever node has it.

        The gradient of the class's log-probability by a factor for each feature, the same for all nodes, absolute:
        what the code of Olatunji et al. (PETS 2023) calls Grad.
        """
        with torch.enable_grad():
            features = inputs.features.detach().requires_grad_(True)
            log_probabilities = self(replace(inputs, features=features)).log_softmax(dim=1).amax(dim=1)
            found = []
            for place in range(len(rows)):  # one backward pass each: edges cannot be batched over
                (gradient,) = torch.autograd.grad(log_probabilities[place], features, retain_graph=True)
                found.append((gradient * features.detach()).sum(dim=0).abs())
        return torch.stack(found)

    def _edges(self, inputs: GraphInputs) -> Tensor:
        """Return relaxed edges, those of the inputs, or of its own graph what a defense made of them."""
        if inputs.weights is not None:
            return inputs.weights if inputs.weights.ndim == 2 else inputs.weights.sum(dim=0)
        own = self.own_edges() if inputs.home and self.own_edges is not None else None
        if own is None:
            return inputs.edge_index
        edges = torch.cat([own, own.flip(0)], dim=1).to(inputs.features.device)
        n = len(inputs.graph_of) // inputs.n_graphs
        return torch.cat([edges + n * copy for copy in range(inputs.n_graphs)], dim=1)

    def _convolved(self, inputs: GraphInputs) -> Tensor:
        values, edges = inputs.features, self._edges(inputs)
        for place, conv in enumerate(self.convolutions):
            if place:
                values = functional.dropout(functional.relu(values), self.dropout, self.training)
            values = conv(values, edges)
        return values

    def forward(self, inputs: GraphInputs) -> Tensor:
        """Return the logits of the nodes or graphs that are asked about, (B, classes)."""
        if self.head is not None:
            logits: Tensor = self.head(self._pooled(inputs))
            return logits
        values = self._convolved(inputs)
        return values if inputs.rows is None else values[inputs.rows]


class RelationalNetwork(GraphNetwork):
    """A graph network that tells kinds of edges apart; n_kinds: how many there are."""

    def __init__(self, n_kinds: int, *sizes: Any, **options: Any) -> None:
        super().__init__(partial(RGCN, num_relations=n_kinds), *sizes, **options)
        self.n_kinds = n_kinds

    def _edges(self, inputs: GraphInputs) -> Any:
        """Return the edges with their kinds, or relaxed ones, (k, N, N).

        Raises: ModelError for relaxed edges of one kind, and for edges that a defense put in the place of others.
        """
        if inputs.weights is not None:
            weights = inputs.weights if inputs.weights.ndim == 3 else inputs.weights[None]
            if len(weights) != self.n_kinds:
                raise ModelError(f"the network takes relaxed edges of {self.n_kinds} kinds", hint="see hete-gmi")
            return weights
        if self.own_edges is not None:
            raise ModelError("edges that a defense changes have no kinds", hint="a network for one kind of edges")
        kinds = inputs.kinds
        return inputs.edge_index, torch.zeros_like(inputs.edge_index[0]) if kinds is None else kinds


def rgcn(n_classes: int, spec: InputSpec, *, width: int = 16, layers: int = 2, dropout: float = 0.5) -> GraphNetwork:
    """Build a relational graph network: Schlichtkrull et al., ESWC 2018.

    width: of the hidden layers; layers: convolutions; dropout: between them. Raises: ModelError for sizes that make no
    network.
    """
    make = partial(RelationalNetwork, spec.options.get(EDGE_KINDS, 1))
    return _build(make, n_classes, spec, width=width, layers=layers, dropout=dropout)


def _build(
    make: Callable[..., GraphNetwork], n_classes: int, spec: InputSpec, *, width: int = 16, layers: int = 2,
    dropout: float = 0.5,
) -> GraphNetwork:  # fmt: skip
    """Build a graph network.

    width: of the hidden layers; layers: convolutions; dropout: between them. Raises: ModelError for sizes that make no
    network.
    """
    task = spec.options.get(TASK)
    if len(spec.shape) != 1 or spec.shape[0] < 1 or task not in ("node", "graph"):
        raise ModelError(f"a graph network takes (features,) of nodes or graphs, not {spec.to_dict()}")
    if n_classes < 1 or width < 1 or layers < 1 or not 0 <= dropout < 1:
        raise ModelError(f"no graph network of {n_classes} classes, width {width}, {layers} layers, dropout {dropout}")
    return make(spec.shape[0], n_classes, task, width=width, layers=layers, dropout=dropout)


gcn = partial(_build, partial(GraphNetwork, GCN))
sage = partial(_build, partial(GraphNetwork, SAGE))
gat = partial(_build, partial(GraphNetwork, GAT))
gin = partial(_build, partial(GraphNetwork, GIN))
