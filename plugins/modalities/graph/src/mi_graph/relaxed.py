"""Searching the edges of a graph as numbers between 0 and 1.

A relaxed adjacency is float (n, n), or (k, n, n) for k kinds of edges, symmetric, with an empty diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mi_graph.batch import Graphs
from mi_graph.graphs import Graph
from mi_graph.similarity import cosine, scores_of
from micore.errors import BudgetExceeded, ModelError
from micore.runtime import Random
from micore.target import CountedModule

Gradient = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Of a relaxed adjacency and the number of the step: the loss, (), and the gradient of each entry by itself."""


@dataclass
class Descent:
    """Relaxed edges that were found, the losses on the way, and what stopped the search early."""

    edges: Tensor
    losses: list[float] = field(default_factory=list)
    problem: BudgetExceeded | None = None


def descend(
    gradient: Gradient, start: Tensor, *, steps: int, step_size: float, most: float | Sequence[float]
) -> Descent:
    """Take steps of gradient descent; after each, edges are projected to [0, 1] and to a sum of at most ``most``.

    A pair moves by the gradients of both its entries. start: is changed. most: of k kinds of edges, start (k, n, n),
    one for each.
    """
    # All steps write to the same two matrices and to one row of losses: what outlives a step scatters the heap.
    descent, moved, losses = Descent(start), torch.empty_like(start), start.new_empty(steps)
    limits, done = most if isinstance(most, Sequence) else [most], 0
    for step in range(steps):
        try:
            losses[step] = _moved(gradient, start, step, step_size, moved)
        except BudgetExceeded as error:
            descent.problem = error
            break
        for part, edges, limit in zip(_by_kind(moved), _by_kind(start), limits, strict=True):
            projected(part, limit, out=edges)
        done = step + 1
    descent.losses = losses[:done].tolist()
    return descent


def _by_kind(edges: Tensor) -> Tensor:
    return edges if edges.ndim == 3 else edges[None]


def _moved(gradient: Gradient, edges: Tensor, step: int, step_size: float, out: Tensor) -> Tensor:
    """Write where edges go by one step, and return the loss."""
    loss, slope = gradient(edges, step)
    torch.add(slope, slope.mT, out=out).mul_(-step_size).add_(edges)
    out.diagonal(dim1=-2, dim2=-1).zero_()
    return loss.detach()


def by_autograd(loss: Callable[[Tensor, int], Tensor]) -> Gradient:
    """Return the gradient of a loss of relaxed edges and the number of the step."""

    def gradient(edges: Tensor, step: int) -> tuple[Tensor, Tensor]:
        edges = edges.detach().requires_grad_(True)
        value = loss(edges, step)
        (slope,) = torch.autograd.grad(value, edges)
        return value, slope

    return gradient


def projected(edges: Tensor, most: float, rounds: int = 30, out: Tensor | None = None) -> Tensor:
    """Return the nearest edges in [0, 1] whose sum is at most ``most``: shifted by one number, then clipped.

    out: where to write them, another tensor than edges.
    """
    clipped = torch.clamp(edges, 0, 1, out=out)
    if float(clipped.sum()) <= most:  # one look at the device for each step: the bisection is dear
        return clipped
    low, high = (edges.min() - 1).clamp(max=0), edges.max()
    for _ in range(rounds):
        middle = (low + high) / 2
        is_over = torch.sub(edges, middle, out=clipped).clamp_(0, 1).sum() > most
        low, high = torch.where(is_over, middle, low), torch.where(is_over, high, middle)
    # the shift is upwards of 0: what was 0, as the diagonal, stays it
    return torch.sub(edges, high, out=clipped).clamp_(0, 1)


def drawn(found: Tensor, k: int, rng: Random) -> Tensor:
    """Draw k of the pairs without replacement, in proportion to found (p,), all at once; return 0 or 1, (p,)."""
    noise = rng.uniform(tuple(found.shape)).to(found.device).clamp(min=1e-12)
    keys = found.clamp(min=1e-12).log() - (-noise.log()).log()  # Gumbel's trick
    order = keys.masked_fill(found <= 0, -torch.inf).topk(k).indices
    return torch.zeros_like(found).index_fill(0, order, 1.0)


def sparsity(edges: Tensor) -> Tensor:
    """Return the norm of the edges, each pair once; differentiable where there are none."""
    return (edges.square().sum() / 2 + 1e-12).sqrt()


def roughness(edges: Tensor, products: Tensor) -> Tensor:
    """Return how much the features of neighbours differ: tr(X' R (D - A) R X), R the inverse roots of degrees.

    edges: (n, n); products: X X' (n, n).
    """
    degrees = edges.sum(dim=1)
    roots = (degrees + 1e-3).rsqrt()
    return (degrees * roots.square() * products.diagonal()).sum() - roots @ (edges * products) @ roots


def roughness_of_pairs(values: Tensor, pairs: Tensor, products: Tensor, squares: Tensor) -> Tensor:
    """Return the `roughness` of edges that lie among a few pairs.

    values: (m,) of pairs (2, m); products: x y of their features (m,); squares: x x of the features of each node (n,).
    """
    one, two = pairs
    degrees = torch.zeros_like(squares).index_add(0, one, values).index_add(0, two, values)
    roots = (degrees + 1e-3).rsqrt()
    return (degrees * roots.square() * squares).sum() - 2 * (values * products * roots[one] * roots[two]).sum()


def relaxed_nodes(features: Tensor, edges: Tensor) -> Graphs:
    """Name all nodes of a graph with relaxed edges; features: (n, F)."""
    return Graphs.nodes_of(Graph(features, torch.empty(2, 0, dtype=torch.int64), weights=edges))


def layers_of(module: CountedModule, samples: Graphs) -> tuple[list[Tensor], Tensor]:
    """Return what nodes are after each convolution, (N, width) each, and the logits, by one query of all samples.

    Raises: ModelError for a target without convolutions.
    """
    layers = getattr(module.inner, "convolutions", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ModelError("the target has no graph convolutions whose layers could be read")
    seen: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output)) for layer in layers]
    try:
        logits = module(samples)
    finally:
        for handle in handles:
            handle.remove()
    return [values.float() for values in seen], logits.float()


def encoded(module: CountedModule, features: Tensor, edges: Tensor) -> Tensor:
    """Return how alike nodes are after the target's first layer along relaxed edges, of all pairs (p,), 0 to 1.

    What the paper of GraphMI calls its graph auto-encoder; one query of all nodes. Raises: ModelError for a target
    without convolutions.
    """
    (first, *_), _ = layers_of(module, relaxed_nodes(features, edges))
    return scores_of(first.relu(), cosine).clamp(min=0)
