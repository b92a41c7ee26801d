"""GSEF: edges from the explanations of a graph network's answers.

Olatunji, Rathee, Funke, Khosla: "Private Graph Extraction via Feature Explanations", PETS 2023 (arXiv:2206.14724).

Threat model: an interface that answers about nodes of its private graph and explains its answers: how much each feature
speaks for them, whichever node has it. Features of all nodes are known.

- ``method=similarity`` (the paper's ExplainSim): how alike are the explanations of two nodes? A node's explanation sums
  over its neighbourhood, so that neighbours have nearly the same.
- ``method=gsef``: two graphs are learned, by denoising features and by denoising explanations, as SLAPS (Fatemi et al.,
  NeurIPS 2021) learns graphs: values are hidden, and a network that passes messages along the learned edges has to tell
  them. The graph network learns the target's classes besides. The sum of both graphs is the result.

Fidelity notes (paper / authors' code / here)
- Explanations: Grad, Grad x Input, Zorro, GraphLIME, GNNExplainer / the same / Grad, of the target's interface.
- Classes of training nodes are known / true ones / the likeliest classes of the target's answers, of all nodes.
- Hidden are a twentieth of the values that are set, and five times as many others as is the share of these / the same /
  the same for features of 0 and 1; of other values a twentieth.
- 2,000 epochs with 512 hidden units, the classifier from epoch 400 on / the same / ``paper``; ``default`` has fewer.
- The graph is a free number for each pair, made symmetric and normalised / the same / the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.attack import Found, StructureAttack, ask_nodes, filled, require_all_pairs
from mi_graph.cases import known_of
from mi_graph.evidence import Known
from mi_graph.graphs import n_pairs, values_of_pairs
from mi_graph.networks import EXPLAIN
from mi_graph.similarity import cosine, scores_of
from micore.contracts import Case, Config, Prepared
from micore.runtime import Runtime
from micore.target import Target

STEEPNESS = 6.0
"""Of the starting values: ``6 A - 6`` of a nearest-neighbour graph A, so that after ELU + 1 a non-edge is 0.0025."""


class GsefConfig(Config):
    """Settings of the attack."""

    evidence: Literal["features", "labels"] = Field(
        "features", description="what is known; the attack uses no labels, its floors do"
    )
    method: Literal["similarity", "gsef"] = Field(
        "similarity", description="similarity: ExplainSim; gsef: learned graphs"
    )
    batch_size: int = Field(512, ge=1, description="nodes that are asked about at once")
    epochs: int = Field(2000, ge=1, description="gsef: of learning (code: 2000)")
    classify_from: float = Field(
        0.2, ge=0, le=1, description="gsef: part of these after which classes count (code: 0.2)"
    )
    hidden: int = Field(512, ge=1, description="gsef: width of the denoising network (code: 512)")
    neighbours: int = Field(20, ge=1, description="gsef: of the graph that learning begins with (code: 20)")
    learning_rate: float = Field(1e-2, gt=0, description="gsef: of its Adam (code: 1e-2)")
    hide: float = Field(0.05, gt=0, lt=1, description="gsef: share of values that are hidden (code: 1/20)")


class ExplanationAttack(StructureAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = GsefConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {"epochs": 200, "hidden": 64},
        "smoke": {"epochs": 40, "hidden": 16, "neighbours": 5},
        "paper": {"method": "gsef"},
    }
    config: GsefConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Ask for explanations of all nodes, and compare them or learn a graph.

        Nodes that were not explained count as explained like the mean. Raises: UsageError for a large graph with method
        gsef.
        """
        known, classes = known_of(case), None
        if self.config.method == "gsef":
            require_all_pairs("gsef", known, hint="-p method=similarity")
            answers, problem = ask_nodes(target, known, known.n_nodes)
            if problem is not None:
                return Found(torch.zeros(n_pairs(known.n_nodes)), problem)
            classes = answers[0].argmax(dim=1)
        found, problem = ask_nodes(target, known, self.config.batch_size, EXPLAIN)
        explained = filled(found, known.n_nodes, torch.ones(known.features.shape[1]))
        return Found(self._scores(known, explained, classes, case, runtime), problem)

    def _scores(
        self, known: Known, explained: Tensor, classes: Tensor | None, case: Case, runtime: Runtime
    ) -> Tensor:  # fmt: skip
        if classes is None:
            return scores_of(explained, cosine, None if known.pairs is None else known.pairs.to(explained.device))
        features = known.features.to(explained.device)
        parts = [
            learned(_Views(values, classes, name), self.config, case, runtime)
            for name, values in (("features", features), ("explanations", explained))
        ]
        return values_of_pairs(parts[0].add_(parts[1]))


@dataclass(frozen=True)
class _Views:
    """What a graph is learned from: values (n, F) that are hidden in part, and classes (n,)."""

    values: Tensor
    classes: Tensor
    name: str

    @property
    def is_binary(self) -> bool:
        return bool(((self.values == 0) | (self.values == 1)).all())


class _Passing(nn.Module):
    """Two layers of messages along a dense adjacency."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, out)

    def forward(self, values: Tensor, adjacency: Tensor) -> Tensor:
        hidden = functional.dropout(functional.relu(adjacency @ self.first(values)), 0.5, self.training)
        found: Tensor = self.last(adjacency @ hidden)  # messages are narrow: values of thousands would be dear to pass
        return found


def learned(views: _Views, config: GsefConfig, case: Case, runtime: Runtime) -> Tensor:
    """Learn a graph along which hidden values can be told; return it, (n, n), symmetric."""
    values, purpose = views.values, ("gsef", views.name, case.id)
    with runtime.seeded(*purpose, "networks"):
        denoiser = _Passing(values.shape[1], config.hidden, values.shape[1])
        classifier = _Passing(values.shape[1], 16, int(views.classes.max()) + 1)
    for network in (denoiser, classifier):
        runtime.place(network)
    free = (nearest(values, config.neighbours).mul_(STEEPNESS) - STEEPNESS).requires_grad_(True)
    free.grad = torch.zeros_like(free)  # stays where it is: a new one for each epoch scatters the heap
    optimizer = torch.optim.Adam([
        {"params": [free, *denoiser.parameters()], "lr": config.learning_rate},
        {"params": classifier.parameters(), "lr": config.learning_rate / 10, "weight_decay": 5e-4},
    ])  # fmt: skip
    with runtime.progress.track(f"graph of {views.name}", config.epochs) as report:
        for epoch in range(config.epochs):
            in_use = [denoiser, classifier] if epoch >= config.classify_from * config.epochs else [denoiser]
            optimizer.zero_grad(set_to_none=False)
            with runtime.seeded(*purpose, epoch):
                _add_gradients(free, views, in_use, config.hide)
            optimizer.step()
            report(epoch + 1)
    return normalised(edges_of(free.detach()))


def _add_gradients(free: Tensor, views: _Views, networks: Sequence[nn.Module], hide: float) -> None:
    """Write the gradient of free numbers: of the denoiser's loss and, where it is given, the classifier's.

    One loss after the other, so that one network's matrices are held; the networks' own gradients are added to theirs.
    """
    adjacency = edges_of(free.detach())
    roots = roots_of(adjacency)
    adjacency.mul_(roots[:, None]).mul_(roots).requires_grad_(True)
    denoiser, *classifiers = networks
    denoising_loss(views, denoiser, functional.dropout(adjacency, 0.25), hide).backward()
    for classifier in classifiers:
        functional.cross_entropy(classifier(views.values, adjacency), views.classes).backward()
    carry_back(adjacency.grad, adjacency, roots, free)


def nearest(values: Tensor, k: int) -> Tensor:
    """Return who is among the k nearest of whom by cosine, and everyone of themselves, 0 or 1, (n, n)."""
    alike = cosine(values, values).fill_diagonal_(torch.inf)
    chosen = alike.topk(min(k + 1, len(values)), dim=1).indices
    return torch.zeros_like(alike).scatter_(1, chosen, 1.0)


def edges_of(free: Tensor) -> Tensor:
    """Return a symmetric adjacency above 0 of free numbers (n, n)."""
    positive = functional.elu(free).add_(1)
    return (positive + positive.T).div_(2)


def normalised(adjacency: Tensor) -> Tensor:
    """Return an adjacency over the square roots of both degrees."""
    roots = roots_of(adjacency)
    return roots[:, None] * adjacency * roots[None, :]


def roots_of(adjacency: Tensor) -> Tensor:
    """Return one over the square root of each degree, (n,)."""
    return (adjacency.sum(dim=1) + 1e-10).rsqrt()


@torch.no_grad()
def carry_back(slope: Tensor, adjacency: Tensor, roots: Tensor, free: Tensor) -> None:
    """Write to free numbers (n, n) their gradient, given that of ``normalised(edges_of(free))``, by hand.

    adjacency: that one; roots: what it was scaled by, (n,). It and slope are used up: these few matrices are held, and
    not the twice as many that operations save for their gradients.
    """
    adjacency.mul_(slope)
    of_degrees = (adjacency.sum(dim=1) + adjacency.sum(dim=0)) * roots.square() / -2
    slope.mul_(roots[:, None]).mul_(roots).add_(of_degrees[:, None])
    steepness = torch.clamp(free, max=0, out=adjacency).exp_()  # of ELU
    free.grad = torch.add(slope, slope.T, out=free.grad).mul_(steepness).div_(2)


def denoising_loss(views: _Views, denoiser: nn.Module, adjacency: Tensor, hide: float) -> Tensor:
    """Hide some values, and return how wrong the network is about these."""
    values = views.values
    odds = hide
    if views.is_binary:
        share = values.mean().clamp(min=1e-6)
        odds = torch.where(values == 1, hide, (5 * hide * share / (1 - share).clamp(min=1e-6)).clamp(max=1))
    hidden = torch.rand_like(values) < odds
    told = denoiser(values.masked_fill(hidden, 0), adjacency)
    if views.is_binary:
        losses = functional.binary_cross_entropy_with_logits(told, values, reduction="none")
    else:
        losses = (told - values).square()
    return (losses * hidden).sum() / hidden.sum().clamp(min=1)
