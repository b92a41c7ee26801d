"""Numbers that tell whether two nodes are neighbours: eight distances, and four operators (He et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from mi_graph.graphs import n_pairs
from mi_graph.similarity import BLOCK, DISTANCES, ELEMENTS

OPERATORS = 4

LEARNED = 32
"""Numbers that a perceptron makes of those of a pair: blocks leave room for them."""


@dataclass(frozen=True)
class PairViews:
    """What pairs of n nodes are told by: values of the nodes, float32 (n, d) each, on one device.

    distances: values of which the eight distances count, turned round so that more is more alike. operators: values of
    which the mean, the product, the difference and its square count, each number by itself. Distances that are no
    finite numbers are 0.
    """

    distances: tuple[Tensor, ...]
    operators: tuple[Tensor, ...] = ()

    @property
    def n_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.distances[0])

    @property
    def width(self) -> int:
        """How many numbers tell of a pair."""
        return len(DISTANCES) * len(self.distances) + OPERATORS * sum(values.shape[1] for values in self.operators)

    def to(self, device: torch.device) -> PairViews:
        """Return the values on a device."""
        moved = (tuple(values.to(device) for values in part) for part in (self.distances, self.operators))
        return replace(self, **dict(zip(("distances", "operators"), moved, strict=True)))

    def of(self, pairs: Tensor) -> Tensor:
        """Return the numbers of pairs (2, p), (p, width), for so many at once as memory allows."""
        one, two = pairs.to(self.distances[0].device)
        most = max(self.width, *(values.shape[1] for values in self.distances))
        rows = max(1, ELEMENTS // most)
        return torch.cat([self._of(a, b) for a, b in zip(one.split(rows), two.split(rows), strict=True)])

    def _of(self, one: Tensor, two: Tensor) -> Tensor:
        parts = [distances_of(values[one], values[two]) for values in self.distances]
        return _finite([*parts, *(operators_of(values[one], values[two]) for values in self.operators)])

    def blocks(self) -> Iterator[Tensor]:
        """Yield the numbers of all pairs in order, some rows of nodes at once: (p, width) in all."""
        n, device = self.n_nodes, self.distances[0].device
        block = max(1, min(BLOCK, ELEMENTS // (n * max(self.width, LEARNED))))
        for start in range(0, n - 1, block):
            rows = slice(start, min(start + block, n - 1))
            above = torch.triu_indices(rows.stop - start, n - start, 1, device=device)
            yield self._between(rows, slice(start, n))[above[0], above[1]]

    def _between(self, rows: slice, columns: slice) -> Tensor:
        """Return the numbers of some nodes beside others, (a, b, width)."""
        parts = [distance(values[rows], values[columns])[..., None]
                 for values in self.distances for distance in DISTANCES.values()]  # fmt: skip
        parts += [operators_of(values[rows, None], values[None, columns]) for values in self.operators]
        return _finite(parts)

    def scored(self, score: Callable[[Tensor], Tensor], pairs: Tensor | None = None) -> Tensor:
        """Return the scores (p,) that a function gives numbers (b, width) of pairs; None: all pairs in order."""
        if pairs is not None:
            rows = max(1, ELEMENTS // self.width)
            return torch.cat([score(self.of(part)) for part in pairs.split(rows, dim=1)])
        found, place = torch.empty(n_pairs(self.n_nodes), device=self.distances[0].device), 0
        for numbers in self.blocks():
            found[place : place + len(numbers)] = score(numbers)
            place += len(numbers)
        return found


def distances_of(one: Tensor, two: Tensor) -> Tensor:
    """Return how alike rows (p, d) are to rows (p, d), (p, 8): each of `DISTANCES`, pair by pair."""
    difference, total = (one - two).abs(), (one + two).abs()
    centred = (values - values.mean(dim=1, keepdim=True) for values in (one, two))
    city, squared = difference.sum(dim=1), difference.square().sum(dim=1)
    found = {
        "cosine": _cosine(one, two),
        "euclidean": -squared.sqrt(),
        "correlation": _cosine(*centred),
        "chebyshev": -difference.amax(dim=1),
        "braycurtis": -city / total.sum(dim=1).clamp(min=1e-12),
        "canberra": -(difference / (one.abs() + two.abs()).clamp(min=1e-12)).sum(dim=1),
        "cityblock": -city,
        "sqeuclidean": -squared,
    }
    return torch.stack([found[name] for name in DISTANCES], dim=1)


def _cosine(one: Tensor, two: Tensor) -> Tensor:
    return (functional.normalize(one, dim=1) * functional.normalize(two, dim=1)).sum(dim=1)


def operators_of(one: Tensor, two: Tensor) -> Tensor:
    """Return mean, product, difference and squared difference of values (..., d) and others, (..., 4 d)."""
    difference = (one - two).abs()
    return torch.cat([(one + two) / 2, one * two, difference, difference.square()], dim=-1)


def entropies(answers: Tensor) -> Tensor:
    """Return how unsure answers (n, classes) are, (n, 1): ``-sum p log(p + 1e-5)`` as the authors' code."""
    answers = answers.clamp(min=0)
    return -(answers * (answers + 1e-5).log()).sum(dim=1, keepdim=True)


def _finite(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=-1).nan_to_num(0.0, 0.0, 0.0)
