"""What lists of edges hold that an undirected graph does not."""

from __future__ import annotations

import torch
from torch import Tensor

from mi_graph.graphs import ordered

CLEAN = "Drop self-loops and repeated edges, and take directed edges as undirected, where a file has such"
CLEAN_HINT = "-D clean=true drops them and takes edges as undirected"


def unclean(edges: Tensor) -> str:
    """Tell what a list of edges holds that an undirected graph does not; edges in both directions are fine."""
    loops = int((edges[0] == edges[1]).sum())
    different = torch.unique(edges, dim=1)
    repeated = edges.shape[1] - different.shape[1]
    forward = different[:, different[0] < different[1]]
    backward = different[:, different[0] > different[1]].flip(0)
    both = forward.shape[1] + backward.shape[1] - ordered(different).shape[1]
    single = forward.shape[1] + backward.shape[1] - 2 * both
    parts = [(loops, "self-loops"), (repeated, "repeated edges")]
    if both and single:
        parts.append((single, "edges in one direction only, besides others in both"))
    return ", ".join(f"{count} {what}" for count, what in parts if count)
