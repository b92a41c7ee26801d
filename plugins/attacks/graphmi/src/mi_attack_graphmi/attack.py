"""GraphMI: relaxed edges with which a graph network gives the known classes.

Zhang, Liu, Huang, Wang, Lu, Liu, Chen: "GraphMI: Extracting Private Graph Data from Graph Neural Networks", IJCAI 2021
(arXiv:2106.02820); Zhang et al.: "Model Inversion Attacks against Graph Neural Networks", TKDE 2022 (arXiv:2209.07807).

Threat model: white box; the features of all nodes, the true classes of some or all, and how many edges there are.

1. From no edges, gradient descent lowers the cross-entropy of the known classes, the norm of the edges and, later, how
   much the features of neighbours differ; after each step edges are projected to [0, 1] and to a sum (section 3.2).
2. Recovered are (``decode``) the cosines of what the nodes are after the target's first layer on these edges
   (``encoder``, the paper's graph auto-encoder), the edges themselves (``edges``), or edges drawn by them
   (``sampled``): of several draws that with the lowest loss (section 3.4).

Fidelity notes (paper / authors' code / here)
- Sparsity: the L1 norm / the L2 norm, not squared / as the code.
- Known classes: those of target nodes / of a random tenth of all nodes, test nodes among them / of the share ``known``.
- The sum of edges: a budget / half the true density times the pairs of target nodes, which for a tenth of Cora allows
  52 edges / as many as there are edges, times ``budget``.
- The auto-encoder takes the place of the edges that were found and is not trained / the same / the same.
- Sampling: the paper's last step / left out of the release / ``sampled``.
- The smoothness is computed from inner products of features, equal to the paper's trace without a product of n x n x F.
- The edges are one symmetric matrix; the gradient of a pair is that of both its entries.
- The authors' GAT overwrites its attention by plain sums; here attention is relaxed too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.baselines import scored
from mi_graph.batch import Graphs
from mi_graph.cases import known_of
from mi_graph.evidence import Known
from mi_graph.graphs import Graph, all_pairs, symmetric
from mi_graph.similarity import cosine, scores_of
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, ModelError, UsageError
from micore.runtime import Runtime
from micore.target import CountedModule, Target
from micore.threat import Spending


class GraphMIConfig(Config):
    """Settings of GraphMI."""

    evidence: Literal["labels"] = Field("labels", description="features and true classes of all nodes")
    known: float = Field(1.0, gt=0, le=1, description="share of the nodes whose classes are used (code: 0.1)")
    steps: int = Field(100, ge=1, description="of gradient descent (code: 100)")
    step_size: float = Field(0.1, gt=0, description="of them (code: 0.1)")
    sparsity: float = Field(1e-3, ge=0, description="weight of the norm of the edges (code: 1e-3)")
    smoothness: float = Field(1e-4, ge=0, description="weight of how much neighbours differ (code: 1e-4)")
    smooth_from: int = Field(50, ge=0, description="step from which on that counts (code: 50)")
    budget: float = Field(1.0, gt=0, description="largest sum of the edges, in numbers of true edges")
    decode: Literal["encoder", "edges", "sampled"] = Field("encoder", description="what is given back (code: encoder)")
    draws: int = Field(20, ge=1, description="of sampled: draws of edges (code: 20)")


class GraphMI:
    """The attack GraphMI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = GraphMIConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"steps": 40, "smooth_from": 20, "step_size": 1.0},
        "paper": {"known": 0.1, "budget": 0.01},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: GraphMIConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare nothing."""
        return None

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the edges of each case's graph.

        Raises: UsageError for evidence without labels, or of a large graph of which only some pairs are asked about;
        ModelError for a target without graph convolutions; BudgetExceeded, after what was found until then.
        """
        for case in cases:
            search = _Search(self.config, target.module, _all_of(known_of(case)), case, runtime)
            with target.ledger.owned_by([case.id]):
                problem = search.descend()
                scores, problem = search.decoded(problem)
            yield replace(scored(case, search.known, scores), history={"loss": search.losses}, complete=problem is None)
            if problem is not None:
                raise problem

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count nothing that is known before the graph is: each step asks about all nodes, forward and backward."""
        return Forecast(preparation=Spending(), per_case=Spending())


def _all_of(known: Known) -> Known:
    if known.labels is None:
        raise UsageError("graphmi needs the classes of nodes", hint="--evidence labels")
    if known.pairs is not None:
        raise UsageError(f"graphmi holds all pairs of {known.n_nodes} nodes at once: too many", hint="a smaller graph")
    return known


@dataclass
class _Search:
    """The search for one graph: a relaxed adjacency (n, n), symmetric, with an empty diagonal."""

    config: GraphMIConfig
    module: CountedModule
    known: Known
    case: Case
    runtime: Runtime

    def __post_init__(self) -> None:
        device, n = self.runtime.device, self.known.n_nodes
        self.losses: list[float] = []
        self._edges = torch.zeros(n, n, device=device)
        self._products = self._features() @ self._features().T
        labels = self.known.labels
        if labels is None:
            raise ValueError("the evidence holds no labels")
        self._rows = self._known_rows().to(device)
        self._labels = labels.to(device)[self._rows]

    def _known_rows(self) -> Tensor:
        n, share = self.known.n_nodes, self.config.known
        if share == 1:
            return torch.arange(n)
        return self.runtime.rng("graphmi", "known", self.case.id).permutation(n)[: max(1, round(share * n))]

    def _features(self) -> Tensor:
        return self.known.features.to(self.runtime.device)

    def descend(self) -> BudgetExceeded | None:
        """Take all steps; return what stopped them early."""
        most = 2 * self.config.budget * self.known.n_edges  # each edge stands there twice
        history = []
        try:
            for step in range(self.config.steps):
                edges = self._edges.requires_grad_(True)
                loss = self._loss(edges, smooth=step >= self.config.smooth_from)
                (gradient,) = torch.autograd.grad(loss, edges)
                history.append(loss.detach())
                moved = edges.detach() - self.config.step_size * (gradient + gradient.T)
                self._edges = projected(moved.fill_diagonal_(0), most)
        except BudgetExceeded as error:
            return error
        finally:
            self._edges = self._edges.detach()
            self.losses = torch.stack(history).tolist() if history else []
        return None

    def _loss(self, edges: Tensor, *, smooth: bool) -> Tensor:
        """Return the objective (equation 5) at a relaxed adjacency."""
        logits = self.module(self._nodes(edges))[self._rows]
        loss = functional.cross_entropy(logits.float(), self._labels)
        loss = loss + self.config.sparsity * (edges.square().sum() / 2 + 1e-12).sqrt()
        return loss + self.config.smoothness * roughness(edges, self._products) if smooth else loss

    def _nodes(self, edges: Tensor) -> Graphs:
        empty = torch.empty(2, 0, dtype=torch.int64)
        return Graphs.nodes_of(Graph(self.known.features, empty, weights=edges))

    @torch.no_grad()
    def decoded(self, problem: BudgetExceeded | None) -> tuple[Tensor, BudgetExceeded | None]:
        """Return the scores of all pairs (p,), and what stopped the search or this; then the edges themselves serve."""
        rows, columns = all_pairs(self.known.n_nodes, self._edges.device)
        found = self._edges[rows, columns]
        if problem is None and self.config.decode != "edges":
            try:
                return (self._encoded() if self.config.decode == "encoder" else self._sampled(found)), None
            except BudgetExceeded as error:
                problem = error
        return found, problem

    def _encoded(self) -> Tensor:
        values = first_layer(self.module, self._nodes(self._edges))
        return scores_of(values.relu(), cosine).clamp(min=0)

    def _sampled(self, found: Tensor) -> Tensor:
        """Draw edges without replacement by how much of an edge each pair is; keep the draw with the lowest loss."""
        k = min(self.known.n_edges, int((found > 0).sum()))
        if not k:
            return found
        best, lowest = found, torch.inf
        for draw in range(self.config.draws):
            noise = self.runtime.rng("graphmi", "draw", draw, self.case.id).uniform(tuple(found.shape)).to(found.device)
            order = (found.clamp(min=1e-12).log() - (-noise.clamp(min=1e-12).log()).log()).masked_fill(
                found <= 0, -torch.inf
            )
            chosen = torch.zeros_like(found).index_fill_(0, order.topk(k).indices, 1.0)
            loss = float(self._loss(symmetric(chosen, self.known.n_nodes), smooth=True))
            if loss < lowest:
                best, lowest = chosen, loss
        return best


def roughness(edges: Tensor, products: Tensor) -> Tensor:
    """Return how much the features of neighbours differ: tr(X' R (D - A) R X), R the inverse roots of degrees.

    edges: (n, n); products: X X' (n, n).
    """
    degrees = edges.sum(dim=1)
    roots = (degrees + 1e-3).rsqrt()
    return (degrees * roots.square() * products.diagonal()).sum() - roots @ (edges * products) @ roots


def projected(edges: Tensor, most: float, rounds: int = 30) -> Tensor:
    """Return the nearest edges (n, n) in [0, 1] whose sum is at most ``most``: shifted by one number, then clipped."""
    clipped = edges.clamp(0, 1)
    if float(clipped.sum()) <= most:  # one look at the device for each step: the bisection is dear
        return clipped
    low, high = (edges.min() - 1).clamp(max=0), edges.max()
    for _ in range(rounds):
        middle = (low + high) / 2
        is_over = (edges - middle).clamp(0, 1).sum() > most
        low, high = torch.where(is_over, middle, low), torch.where(is_over, high, middle)
    return (edges - high).clamp(0, 1).fill_diagonal_(0)


def first_layer(module: CountedModule, samples: Graphs) -> Tensor:
    """Return what nodes are after the first convolution, (N, width), by one query of all samples.

    Raises: ModelError for a target without convolutions.
    """
    layers = getattr(module.inner, "convolutions", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ModelError("the target has no graph convolutions whose first layer could be read")
    seen: list[Tensor] = []
    handle = layers[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        module(samples)
    finally:
        handle.remove()
    return seen[0].float()
