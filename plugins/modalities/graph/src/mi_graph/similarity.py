"""How alike two nodes are, over many pairs: by blocks, without a tensor of pairs times features."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from mi_graph.graphs import n_pairs

BLOCK = 256
"""Nodes that are compared with all others at once."""

ELEMENTS = 1 << 22
"""Values of the largest tensor of numbers of pairs."""

CACHED = 1 << 18
"""Values of a tensor of pairs times features, of which few fit a processor's cache: larger ones take twice the time."""

ROWS = 16
"""Rows of such a tensor."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Rows (a, d) and others (b, d) to how alike they are, (a, b); the higher the more."""


def cosine(one: Tensor, two: Tensor) -> Tensor:
    """Cosine."""
    return functional.normalize(one, dim=1) @ functional.normalize(two, dim=1).T


def correlation(one: Tensor, two: Tensor) -> Tensor:
    """Pearson's correlation."""
    return cosine(one - one.mean(dim=1, keepdim=True), two - two.mean(dim=1, keepdim=True))


def euclidean(one: Tensor, two: Tensor) -> Tensor:
    """Negative L2 distance."""
    return -torch.cdist(one, two)


def squared(one: Tensor, two: Tensor) -> Tensor:
    """Negative squared L2 distance."""
    return -torch.cdist(one, two).square()


def cityblock(one: Tensor, two: Tensor) -> Tensor:
    """Negative L1 distance."""
    return -torch.cdist(one, two, p=1)


def chebyshev(one: Tensor, two: Tensor) -> Tensor:
    """Negative largest difference."""
    return -torch.cdist(one, two, p=torch.inf)


def braycurtis(one: Tensor, two: Tensor) -> Tensor:
    """Negative L1 distance over the sum of all absolute sums."""
    total = torch.cdist(one, -two, p=1)  # |a + b| = |a - (-b)|
    return -torch.cdist(one, two, p=1) / total.clamp(min=1e-12)


def canberra(one: Tensor, two: Tensor) -> Tensor:
    """Negative sum of differences, each over the sum of both values; some rows and some others at once."""
    found = one.new_empty(len(one), len(two))  # filled in place: to keep many small parts scatters the heap
    columns = max(1, CACHED // max(1, ROWS * one.shape[1]))
    for row in range(0, len(one), ROWS):
        some = one[row : row + ROWS, None]
        for column in range(0, len(two), columns):
            others = two[None, column : column + columns]
            shares = (some - others).abs() / (some.abs() + others.abs()).clamp(min=1e-12)
            found[row : row + ROWS, column : column + columns] = -shares.sum(dim=2)
    return found


DISTANCES: Mapping[str, Distance] = {
    "cosine": cosine, "euclidean": euclidean, "correlation": correlation, "chebyshev": chebyshev,
    "braycurtis": braycurtis, "canberra": canberra, "cityblock": cityblock, "sqeuclidean": squared,
}  # fmt: skip
"""The eight distances of link stealing (He et al., 2021), turned round so that more is more alike."""


def same(one: Tensor, two: Tensor) -> Tensor:
    """1 where rows of one number each are equal, else 0."""
    return (one == two.T).float()


def scores_of(values: Tensor, distance: Distance, pairs: Tensor | None = None, block: int = BLOCK) -> Tensor:
    """Return how alike pairs of rows of values (n, d) are, float32 (p,) on their device; None: all pairs in order."""
    if pairs is not None:
        return _paired(values, distance, pairs)
    n, place = len(values), 0
    found = torch.empty(n_pairs(n), device=values.device)
    for start in range(0, n, block):
        matrix = distance(values[start : start + block], values[start:])
        part = matrix[torch.ones_like(matrix, dtype=torch.bool).triu(1)]
        found[place : place + len(part)] = part  # rows of pairs follow each other
        place += len(part)
    return found


def _paired(values: Tensor, distance: Distance, pairs: Tensor) -> Tensor:
    """Compare the pairs of one first node together."""
    order = pairs[0].argsort(stable=True)
    firsts, counts = pairs[0, order].unique_consecutive(return_counts=True)
    parts = zip(firsts.tolist(), pairs[1, order].split(counts.tolist()), strict=True)
    found = torch.cat([distance(values[first : first + 1], values[others])[0].float() for first, others in parts])
    return torch.empty_like(found).index_copy_(0, order, found)
