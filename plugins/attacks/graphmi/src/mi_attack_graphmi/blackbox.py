"""GraphMI without the weights: edges with which the target's answers are the known classes.

Zhang et al.: "Model Inversion Attacks against Graph Neural Networks", TKDE 2022 (arXiv:2209.07807), whose black-box
part has no public code.

Threat model: an interface that takes a graph and answers about its nodes, with scores (``graphmi-bb``) or with classes
alone (``graphmi-label``); features of all nodes, true classes of some or all, and how many edges there are.

- ``method=gradient``: relaxed edges are searched by projected gradient descent, as in GraphMI. The gradient of the
  classes' loss is estimated: graphs drawn around the present one, each with its mirror image, are asked about. Those of
  the norm and the smoothness are exact.
- ``method=reinforcement``: an agent adds edges one by one and is rewarded as more of the known classes are answered
  (see `mi_attack_graphmi.reinforcement`).

Fidelity notes (paper / here)
- Gradient estimation perturbs all edges / the ``candidates`` pairs for each edge whose features are most alike: with
  millions of free pairs the loss of a drawn graph tells nothing about one of them.
- A drawn graph has as many edges as the private one, those with the highest perturbed values.
- The encoder's weights decode edges in the white box; without them the cosines of features are added to the edges
  (``decode=sum``), or nothing is (``edges``).
- The design of agent, reward and networks is ours where the paper's text leaves it open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mi_attack_graphmi.reinforcement import AgentConfig, explored
from mi_graph.attack import Found, StructureAttack, require_all_pairs
from mi_graph.batch import Graphs
from mi_graph.cases import known_of
from mi_graph.evidence import Known, Labelled
from mi_graph.graphs import Graph, ordered, pairs_at
from mi_graph.relaxed import projected, roughness_of_pairs
from mi_graph.similarity import cosine, scores_of
from micore.contracts import Case, Config, Prepared
from micore.errors import BudgetExceeded
from micore.runtime import Random, Runtime
from micore.target import Target

VALUES = 1 << 25
"""Of features of the graphs that are asked about at once: each brings its own copy."""

Losses = Callable[[Graphs, Labelled], Tensor]
"""Of the same labelled nodes in several graphs: the loss of each graph."""


class BlackBoxConfig(AgentConfig):
    """Settings of GraphMI without weights."""

    evidence: Literal["labels"] = Field("labels", description="features and true classes of all nodes")
    known: float = Field(1.0, gt=0, le=1, description="share of the nodes whose classes are used and asked about")
    method: Literal["gradient", "reinforcement"] = Field("gradient", description="how edges are searched")
    decode: Literal["sum", "edges"] = Field("sum", description="sum: with the cosines of features; edges: alone")
    steps: int = Field(100, ge=1, description="gradient: steps of descent")
    step_size: float = Field(0.05, gt=0, description="gradient: length of a step, of a gradient scaled to largest 1")
    directions: int = Field(20, ge=1, description="gradient: directions of a step; two graphs are asked about for each")
    spread: float = Field(0.3, gt=0, description="gradient: deviation of the values around the present ones")
    candidates: float = Field(10, ge=1, description="gradient: pairs that are searched, in numbers of true edges")
    sparsity: float = Field(1e-3, ge=0, description="gradient: weight of the norm of the edges")
    smoothness: float = Field(1e-4, ge=0, description="gradient: weight of how much neighbours differ")


class BlackBoxGraphMI(StructureAttack):
    """The attack by scores (see the module's documentation)."""

    Config: ClassVar[type[Config]] = BlackBoxConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {}, "smoke": {"steps": 10, "directions": 4, "episodes": 3},
        "paper": {"directions": 100, "steps": 100},
    }  # fmt: skip
    config: BlackBoxConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Search the edges.

        Raises: UsageError for evidence without labels, or of a graph that is too large for the method.
        """
        known = known_of(case)
        require_all_pairs("graphmi-bb", known)
        labelled = Labelled.of(known, self.config.known, case, runtime)
        ask = self.losses(target)
        if self.config.method == "gradient":
            found = _Estimated(self.config, known, labelled, ask, runtime, case).descended()
        else:
            found = explored(self.config, known, labelled, ask, runtime, case)
        alike = scores_of(known.features.to(runtime.device), cosine) if self.config.decode == "sum" else 0.0
        return Found(found.scores + alike, found.problem, found.history)

    def losses(self, target: Target) -> Losses:
        """Return the loss: the cross-entropy of the scores."""

        def losses(nodes: Graphs, labelled: Labelled) -> Tensor:
            logs = target.scores(nodes).float().clamp(min=1e-12).log()
            labels = labelled.labels.repeat(len(nodes.graphs)).to(logs.device)
            return functional.nll_loss(logs, labels, reduction="none").view(len(nodes.graphs), -1).mean(dim=1)

        return losses


class LabelGraphMI(BlackBoxGraphMI):
    """The attack by classes alone."""

    def losses(self, target: Target) -> Losses:
        """Return the loss: the share of nodes with another class."""

        def losses(nodes: Graphs, labelled: Labelled) -> Tensor:
            answers = target.labels(nodes)
            labels = labelled.labels.repeat(len(nodes.graphs)).to(answers.device)
            return answers.ne(labels).float().view(len(nodes.graphs), -1).mean(dim=1)

        return losses


def labelled_nodes(features: Tensor, edges: list[Tensor], labelled: Labelled) -> Graphs:
    """Name the labelled nodes in each of several graphs, by their edges (2, m), over the same features."""
    rows = labelled.rows.cpu()
    graphs = tuple(Graph(features, part) for part in edges)
    return Graphs(graphs, torch.arange(len(graphs)).repeat_interleave(len(rows)), rows.repeat(len(graphs)))


@dataclass
class _Estimated:
    """Descent by estimated gradients, of values (m,) of the candidate pairs."""

    config: BlackBoxConfig
    known: Known
    labelled: Labelled
    ask: Losses
    runtime: Runtime
    case: Case

    def __post_init__(self) -> None:
        features = self.known.features.to(self.runtime.device)
        n, wanted = self.known.n_nodes, round(self.config.candidates * self.known.n_edges)
        alike = scores_of(features, cosine)
        self._places = alike.topk(min(wanted, len(alike))).indices.sort().values
        self._pairs = pairs_at(self._places, n)
        products = features @ features.T
        self._products, self._squares = products[tuple(self._pairs)], products.diagonal().clone()
        self._n_pairs = len(alike)
        self._at_once = max(1, VALUES // features.numel())

    def descended(self) -> Found:
        """Take all steps; return the values of all pairs, 0 beside the candidates."""
        values = torch.full((len(self._places),), self.known.n_edges / len(self._places), device=self._places.device)
        losses: list[Tensor] = []
        problem = None
        for step in range(self.config.steps):
            try:
                slope, loss = self._estimate(values, self.runtime.rng("graphmi-bb", step, self.case.id))
            except BudgetExceeded as error:
                problem = error
                break
            losses.append(loss)
            slope = slope + self._exact(values)
            values = projected(
                values - self.config.step_size * slope / slope.abs().amax().clamp(min=1e-12), self.known.n_edges
            )
        scores = torch.zeros(self._n_pairs, device=values.device).index_copy(0, self._places, values)
        return Found(scores, problem, {"loss": torch.stack(losses).tolist() if losses else []})

    def _estimate(self, values: Tensor, rng: Random) -> tuple[Tensor, Tensor]:
        """Return the gradient of the expected loss (m,), and the mean loss of the graphs that were asked about."""
        directions = rng.normal((self.config.directions, len(values))).to(values.device)
        moved = self.config.spread * torch.cat([directions, -directions])
        graphs = (values + moved).split(self._at_once)
        losses = torch.cat([self.ask(self._graphs(part), self.labelled) for part in graphs]).to(values.device)
        plus, minus = losses.chunk(2)
        slope = (plus - minus) @ directions / (2 * self.config.spread * len(directions))
        return slope, losses.mean()

    def _graphs(self, values: Tensor) -> Graphs:
        """Name the labelled nodes in graphs of the pairs with the highest of values (g, m), one for each row."""
        chosen = values.topk(min(self.known.n_edges, values.shape[1]), dim=1).indices
        pairs = self._pairs[:, chosen].cpu()  # (2, g, edges)
        return labelled_nodes(self.known.features, [ordered(part) for part in pairs.unbind(1)], self.labelled)

    def _exact(self, values: Tensor) -> Tensor:
        """Return the gradient of the norm and the smoothness, (m,)."""
        free = values.detach().requires_grad_(True)
        norm = (free.square().sum() + 1e-12).sqrt()
        rough = roughness_of_pairs(free, self._pairs, self._products, self._squares)
        penalty = self.config.sparsity * norm + self.config.smoothness * rough
        (slope,) = torch.autograd.grad(penalty, free)
        return slope
