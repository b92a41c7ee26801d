"""The network of GAP: a perceptron on features, sums over neighbours, a perceptron on all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.adapter import GraphInputs
from mi_graph.networks import GraphNetwork
from micore.errors import ModelError

Aggregates = Callable[[], Tensor | None]
"""Gives the noisy sums of the network's own graph, (hops, n, width), or None before there are any."""


def summed(rows: Tensor, edges: Tensor) -> Tensor:
    """Return the sums of rows (N, width) over neighbours; edges: int64 (2, E), both ways, or relaxed, float (N, N)."""
    if edges.is_floating_point():
        return edges @ rows
    return torch.zeros_like(rows).index_add(0, edges[1], rows[edges[0]])


class Hop(nn.Module):
    """Sums over neighbours, with noise or without, each row divided by its length."""

    def forward(self, rows: Tensor, edges: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return rows (N, width) of length 1; edges: see `summed`."""
        sums = summed(rows, edges)
        return functional.normalize(sums if noise is None else sums + noise, dim=1)


class AggregationNetwork(GraphNetwork):
    """Classify nodes of the own graph by their features and noisy sums that were drawn once; of others by plain sums.

    It has the shape of the network that it replaces: its width and dropout. Without sums of its own graph it takes
    zeros for them: no edge is looked at.
    """

    def __init__(self, replaced: GraphNetwork, hops: int, aggregates: Aggregates) -> None:
        n_features, width, n_classes = replaced.sizes
        super().__init__(
            lambda _one, _two: Hop(), n_features, n_classes, "node", width=width, layers=hops, dropout=replaced.dropout
        )
        self.convolutions = nn.ModuleList(Hop() for _ in range(hops))
        self.encoder = nn.Sequential(nn.Linear(n_features, width), nn.SELU(), nn.Linear(width, width))
        self.hidden = nn.Linear((hops + 1) * width, width)
        self.classifier = nn.Linear(width, n_classes)
        self.aggregates = aggregates

    def encoded(self, features: Tensor) -> Tensor:
        """Return what features (N, F) become, rows of length 1, (N, width): nothing of edges is in it."""
        return functional.normalize(self.encoder(features), dim=1)

    def _sums(self, inputs: GraphInputs, encoded: Tensor) -> list[Tensor]:
        """Return the rows after each hop, (N, width) each."""
        if inputs.home and inputs.weights is None:
            return self._own(inputs, encoded)
        edges = inputs.edge_index if inputs.weights is None else inputs.weights
        found = [encoded]
        for hop in self.convolutions:
            found.append(hop(found[-1], edges))
        return found[1:]

    def _own(self, inputs: GraphInputs, encoded: Tensor) -> list[Tensor]:
        """Return the sums that were drawn, whatever the features are: others would cost further privacy."""
        own = self.aggregates()
        if own is None:
            return [torch.zeros_like(encoded)] * len(self.convolutions)
        if own.shape[1] * inputs.n_graphs != len(encoded):
            raise ModelError(f"the target's own graph has {own.shape[1]} nodes, not {len(encoded) // inputs.n_graphs}")
        return list(own.to(encoded).repeat(1, inputs.n_graphs, 1))

    def _hidden(self, inputs: GraphInputs) -> Tensor:
        encoded = self.encoded(inputs.features)
        if self.training:  # the sums are those of the encoder as it was
            encoded = encoded.detach()
        rows = torch.cat([encoded, *self._sums(inputs, encoded)], dim=1)
        return functional.selu(self.hidden(functional.dropout(rows, self.dropout, self.training)))

    def forward(self, inputs: GraphInputs) -> Tensor:
        """Return the logits of the nodes that are asked about, (B, classes)."""
        values = functional.dropout(self._hidden(inputs), self.dropout, self.training)
        logits: Tensor = self.classifier(values)
        return logits if inputs.rows is None else logits[inputs.rows]
