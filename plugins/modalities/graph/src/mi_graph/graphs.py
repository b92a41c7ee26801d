"""Graphs, and pairs of their nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from micore.files import digest


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph without self-loops, on the CPU.

    features: float32 (n, F); F may be 0. edges: int64 (2, m), each once, the smaller node first, in rising order.
    scores: float32 (p,), how sure an attack is that pairs are edges; pairs: which pairs these are, int64 (2, p) like
    edges, None: all of them (`all_pairs`). weights: a relaxed adjacency (n, n), of k kinds of edges (k, n, n), that
    takes the place of the edges and through which gradients flow, for white-box attacks. kinds: of which kind each edge
    is, int64 (m,), in a heterogeneous graph; None: they do not differ. private: the edges are those of the target's own
    graph, which only its interface knows (`Graph.named`). number: which of the target's private graphs it is, where
    these are many (`Graph.numbered`). home: it is the target's own graph, whose edges a defense may have changed.

    Raises: ValueError when the parts do not fit each other.
    """

    features: Tensor
    edges: Tensor
    scores: Tensor | None = None
    pairs: Tensor | None = None
    weights: Tensor | None = None
    kinds: Tensor | None = None
    private: bool = False
    home: bool = False
    number: int | None = None

    @classmethod
    def named(cls, features: Tensor) -> Graph:
        """Return the private graph as its adversary names it: features (n, F) without the edges."""
        return cls(features, torch.empty(2, 0, dtype=torch.int64), private=True)

    @classmethod
    def numbered(cls, number: int, n_nodes: int) -> Graph:
        """Return one of many private graphs as its adversary names it: neither with features nor with edges."""
        return cls(torch.empty(n_nodes, 0), torch.empty(2, 0, dtype=torch.int64), private=True, number=number)

    def __post_init__(self) -> None:
        n, edges = self.n_nodes, self.edges
        if self.features.ndim != 2 or edges.ndim != 2 or len(edges) != 2:
            raise ValueError(f"features {tuple(self.features.shape)} and edges {tuple(edges.shape)} make no graph")
        if edges.numel() and not bool((edges[0] < edges[1]).all() and edges[0].min() >= 0 and edges[1].max() < n):
            raise ValueError(f"edges must join two of {n} nodes, the smaller one first")
        wanted = n_pairs(n) if self.pairs is None else self.pairs.shape[1]
        if self.scores is not None and self.scores.shape != (wanted,):
            raise ValueError(f"{tuple(self.scores.shape)} scores for {wanted} pairs")
        if self.kinds is not None and self.kinds.shape != (self.n_edges,):
            raise ValueError(f"{tuple(self.kinds.shape)} kinds of {self.n_edges} edges")
        if self.weights is not None and (self.weights.ndim not in (2, 3) or self.weights.shape[-2:] != (n, n)):
            raise ValueError(f"weights {tuple(self.weights.shape)} for {n} nodes")

    @property
    def n_nodes(self) -> int:
        """How many nodes it has."""
        return len(self.features)

    @property
    def n_edges(self) -> int:
        """How many edges it has."""
        return self.edges.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content, 64 hex digits."""
        parts = [self.features, self.edges, self.scores, self.pairs, self.weights]
        parts += [] if self.kinds is None else [self.kinds]
        shapes = [None if part is None else list(part.shape) for part in parts]
        named = self.private if self.number is None else self.number
        return digest(named, shapes, *map(_bytes, parts))

    def counts_of_kinds(self) -> tuple[int, ...]:
        """Return how many edges there are of each kind; nothing where kinds are not told apart."""
        return () if self.kinds is None else tuple(torch.bincount(self.kinds).tolist())

    def degrees(self) -> Tensor:
        """Return how many edges each node has, int64 (n,)."""
        return torch.bincount(self.edges.flatten(), minlength=self.n_nodes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


def _bytes(tensor: Tensor | None) -> bytes:
    return b"" if tensor is None else tensor.detach().cpu().contiguous().numpy().tobytes()


# pairs of nodes -------------------------------------------------------------------------------------------


def n_pairs(n: int) -> int:
    """Count the unordered pairs of n nodes."""
    return n * (n - 1) // 2


def all_pairs(n: int, device: torch.device | None = None) -> Tensor:
    """Return all pairs of n nodes, int64 (2, n (n - 1) / 2), the smaller node first, in rising order."""
    return torch.triu_indices(n, n, 1, device=device)


def places_of(pairs: Tensor, n: int) -> Tensor:
    """Return where pairs (2, p), the smaller node first, stand in `all_pairs` of n nodes, (p,)."""
    one, two = pairs
    return one * n - one * (one + 1) // 2 + two - one - 1


def pairs_at(places: Tensor, n: int) -> Tensor:
    """Return the pairs (2, p) that stand at places (p,) of `all_pairs` of n nodes: the inverse of `places_of`."""
    last = n_pairs(n) - 1 - places  # from the end, rows have 1, 2, 3... pairs
    row = ((8 * last.double() + 1).sqrt().sub(1) / 2).long()
    row += ((row + 1) * (row + 2) // 2 <= last).long() - (row * (row + 1) // 2 > last).long()  # what rounding moved
    return torch.stack([n - 2 - row, n - 1 - (last - row * (row + 1) // 2)])


def values_of_pairs(matrix: Tensor) -> Tensor:
    """Return the values of all pairs (p,), in the order of `all_pairs`, of a matrix (n, n)."""
    rows = [row[first:] for first, row in enumerate(matrix, start=1)]  # a list of pairs would take four times as much
    return torch.cat([matrix.new_empty(0), *rows])


def ordered(pairs: Tensor) -> Tensor:
    """Return pairs (2, p) each once, the smaller node first, in rising order; pairs of one node are left out."""
    pairs = torch.stack([pairs.min(dim=0).values, pairs.max(dim=0).values])
    pairs = pairs[:, pairs[0] < pairs[1]]
    return torch.unique(pairs, dim=1) if pairs.numel() else pairs.reshape(2, 0)


def likeliest(scores: Tensor, n: int, k: int, pairs: Tensor | None = None) -> Tensor:
    """Return the k pairs of n nodes with the highest scores as edges, (2, k); of equal ones the first."""
    chosen = scores.argsort(descending=True, stable=True)[:k].sort().values.cpu()
    return ordered(pairs_at(chosen, n) if pairs is None else pairs[:, chosen])


def symmetric(values: Tensor, n: int) -> Tensor:
    """Return values of all pairs (p,) as a symmetric matrix (n, n) without a diagonal, differentiable."""
    rows, columns = all_pairs(n, values.device)
    matrix = values.new_zeros(n, n).index_put((rows, columns), values)
    return matrix + matrix.T
