"""Colours that tell nodes apart by what is around them, and how alike two graphs are by them, whatever their order.

Shervashidze et al.: "Weisfeiler-Lehman Graph Kernels", JMLR 2011, the subtree kernel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from mi_graph.graphs import Graph

ROUNDS = 10
"""Refinements of colours, as Zhang et al. (USENIX Security 2022) count graphs as alike."""

DIGITS = 8
"""Bytes of a colour: two of a million different ones are equal with a chance of about 3e-8."""


def colour_counts(graph: Graph, rounds: int = ROUNDS, start: Sequence[bytes] | None = None) -> Counter[bytes]:
    """Count the colours of all nodes after 0, 1, ... rounds; equal colours of two graphs mean equal surroundings.

    start: the first colour of each node, such as its features; None: its degree. One colour for all would make any two
    graphs alike by the first count alone.
    """
    neighbours: list[list[int]] = [[] for _ in range(graph.n_nodes)]
    for one, two in graph.edges.T.tolist():
        neighbours[one].append(two)
        neighbours[two].append(one)
    colours = [b"%d" % degree for degree in graph.degrees().tolist()] if start is None else list(start)
    counts = Counter(colours)
    for _ in range(rounds):
        parts = zip(colours, neighbours, strict=True)
        colours = [_hashed(own, sorted(colours[other] for other in others)) for own, others in parts]
        counts.update(colours)
    return counts


def _hashed(own: bytes, others: Sequence[bytes]) -> bytes:
    return blake2b(b"".join([len(own).to_bytes(4, "big"), own, *others]), digest_size=DIGITS).digest()


def kernel(one: Counter[bytes], two: Counter[bytes]) -> float:
    """Return how alike two graphs are by their counts of colours, from 0 to 1; 1: no round tells them apart."""
    sizes = [sum(count * count for count in counts.values()) for counts in (one, two)]
    shared = sum(count * two[colour] for colour, count in one.items())
    return shared / math.sqrt(sizes[0] * sizes[1])
