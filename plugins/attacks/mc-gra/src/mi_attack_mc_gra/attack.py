"""MC-GRA: relaxed edges along which a graph network is, layer by layer, what is known of it.

Zhou, Zhou, Li, Yao, Yao, Han: "On Strengthening and Defending Graph Reconstruction Attack with Markov Chain
Approximation", ICML 2023 (arXiv:2306.09104).

Threat model: white box, and an interface that answers about the nodes of the target's private graph: the features of
all nodes are known, their hidden features (``embeddings``) and answers (``answers``) on the private graph, and the true
classes (evidence ``labels``); each of the three may be left out.

1. From no edges, Adam moves relaxed edges so that the chain of what the target computes along them is like what is
   known: the last hidden features, the answers, the classes. Edges are to be like the similarity of the features and of
   what the nodes become along these edges, and undecided edges cost entropy.
2. The score of a pair is a sum of similarities: of the edges, of all layers along them, of the features and of all that
   is known. ``steps=0`` shows what the sum gives without a search.

Fidelity notes (paper / authors' code / here)
- Hidden features and answers are computed on the private graph with edges that were not normalised, as no deployed
  network does / the same / asked of the target as it is used.
- Classes: of all nodes, test nodes among them / the same / the share ``known``.
- Weights: searched for each graph; the code's objective returns the recovered AUC, so that the truth seems to have
  chosen them / powers of ten by graph / one set for all graphs, chosen on a drawn one; every distance is divided by its
  first value.
- The measures of likeness: some are similarities but are minimised as if they were distances / the same / all are
  distances: ``mse``, ``kl`` of rows, ``hsic`` and ``cka`` by their distance to the best. The mutual information by
  kernel densities puts nearly all values into one bin, and is left out.
- The similarity of nodes: a formula for each graph / the same / the cosine where it is positive (``cosine``), or the
  sigmoid of inner products (``sigmoid``) as for Cora.
- The similarity of the features is a prior in the loss / the same / the same.
- The sum of edges has no effective budget / the same / none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mi_attack_mc_gra.measures import MEASURES, SIMILARITIES, undecided
from mi_graph.attack import Found, StructureAttack, ask_nodes, require_all_pairs
from mi_graph.cases import known_of
from mi_graph.evidence import Known, Labelled
from mi_graph.graphs import values_of_pairs
from mi_graph.networks import EMBED
from mi_graph.relaxed import layers_of, relaxed_nodes, sparsity
from micore.contracts import Case, Config, Prepared
from micore.errors import BudgetExceeded
from micore.runtime import Runtime
from micore.target import CountedModule, Target


class MCGRAConfig(Config):
    """Settings of MC-GRA."""

    evidence: Literal["labels", "features"] = Field("labels", description="what is known besides the target")
    embeddings: bool = Field(True, description="hidden features of the private nodes are asked for")
    answers: bool = Field(True, description="answers about the private nodes are asked for")
    known: float = Field(1.0, gt=0, le=1, description="share of the nodes whose classes are used")
    steps: int = Field(300, ge=0, description="of the search (code: 100)")
    learning_rate: float = Field(3e-2, gt=0, description="of its Adam (code: 1e-3 to 1)")
    measure: Literal["mse", "kl", "hsic", "cka"] = Field(
        "mse", description="how unlike two things are (code: by graph)"
    )
    similarity: Literal["cosine", "sigmoid"] = Field("cosine", description="how alike two nodes are (code: by graph)")
    features_weight: float = Field(0.1, ge=0, description="of edges unlike the features' similarity")
    chain_weight: float = Field(0.1, ge=0, description="of edges unlike the similarity of what nodes become")
    embeddings_weight: float = Field(100.0, ge=0, description="of hidden features unlike the known ones")
    answers_weight: float = Field(100.0, ge=0, description="of answers unlike the known ones")
    entropy_weight: float = Field(0.1, ge=0, description="of undecided edges, and undecided similarities")
    sparsity: float = Field(1e-3, ge=0, description="of the norm of the edges (code: 1e-3)")


class MarkovChainReconstruction(StructureAttack):
    """The attack MC-GRA (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MCGRAConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"steps": 40},
        "paper": {"similarity": "sigmoid"},
    }
    config: MCGRAConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Ask for what is known of the private nodes, and search the edges.

        Raises: UsageError for a large graph of which only some pairs are asked about; ModelError for a target without
        graph convolutions.
        """
        known = known_of(case)
        require_all_pairs("mc-gra", known)
        facts, problem = self._facts(target, known)
        search = _Search(self.config, target.module, known, facts, case, runtime)
        if problem is None:
            problem = search.search()
        return Found(search.scores(), problem, {"loss": search.losses})

    def _facts(self, target: Target, known: Known) -> tuple[_Facts, BudgetExceeded | None]:
        facts, problem = _Facts(), None
        if self.config.embeddings:
            values, problem = ask_nodes(target, known, known.n_nodes, EMBED)
            facts = _Facts(embeddings=values[0] if values else None)
        if self.config.answers and problem is None:
            values, problem = ask_nodes(target, known, known.n_nodes)
            facts = _Facts(facts.embeddings, answers=values[0] if values else None)
        return facts, problem


@dataclass(frozen=True)
class _Facts:
    """What the target said of the private nodes: hidden features (n, width), answers (n, classes)."""

    embeddings: Tensor | None = None
    answers: Tensor | None = None


@dataclass
class _Search:
    """The search for one graph."""

    config: MCGRAConfig
    module: CountedModule
    known: Known
    facts: _Facts
    case: Case
    runtime: Runtime
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        n, device = self.known.n_nodes, self.runtime.device
        self._edges = torch.zeros(n, n, device=device)
        self._alike = SIMILARITIES[self.config.similarity]
        self._features = self._alike(self.known.features.to(device))
        self._labelled = None
        if self.known.labels is not None:
            self._labelled = Labelled.of(self.known, self.config.known, self.case, self.runtime)
        self._chain: list[Tensor] = []

    def search(self) -> BudgetExceeded | None:
        """Take all steps; return what stopped them early."""
        free, slope = torch.zeros_like(self._edges, requires_grad=True), torch.empty_like(self._edges)
        free.grad = torch.empty_like(self._edges)  # all steps write to the same matrices: new ones scatter the heap
        optimizer = torch.optim.Adam([free], self.config.learning_rate)
        first: dict[str, Tensor] = {}
        history, done = slope.new_empty(self.config.steps), 0
        try:
            for step in range(self.config.steps):
                history[step] = self._loss_and_slope(slope, first)
                _evened(slope, out=free.grad)
                optimizer.step()
                with torch.no_grad():
                    _evened(free.clamp_(0, 1).fill_diagonal_(0), out=self._edges)
                done = step + 1
            with torch.no_grad():
                layers, logits = self._along(self._edges)
                self._chain = [*(layer.relu() for layer in layers[:-1]), logits]
        except BudgetExceeded as error:
            return error
        finally:
            self.losses = history[:done].tolist()
        return None

    def _along(self, edges: Tensor) -> tuple[list[Tensor], Tensor]:
        return layers_of(self.module, relaxed_nodes(self.known.features, edges))

    def _weight(self, name: str) -> float:
        weight = getattr(self.config, f"{name}_weight", 1.0)
        return float(weight)

    def _loss_and_slope(self, slope: Tensor, first: dict[str, Tensor]) -> Tensor:
        """Return the loss at the present edges; write its gradient (n, n) to slope, and the first values of parts.

        Part after part is differentiated by itself, up to what they share, so that one part's matrices are held.
        """
        edges = self._edges.detach().requires_grad_(True)
        layers, logits = self._along(edges)
        last = layers[-2].relu() if len(layers) > 1 else logits
        shared = [tensor.detach().requires_grad_(True) for tensor in (edges, last, logits)]
        shared[0].grad = slope.zero_()
        total = torch.zeros((), device=edges.device)
        for name, value in self._parts(*shared):
            scale = first.setdefault(name, value.detach().abs().clamp(min=1e-12))
            weighted = value / scale * self._weight(name)
            weighted.backward()
            total += weighted.detach()
        through = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in shared[1:]]
        slope += torch.autograd.grad([last, logits], edges, through)[0]
        return total

    def _parts(self, edges: Tensor, last: Tensor, logits: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the parts of the loss, by name, at a relaxed adjacency and what the target computes along it."""
        unlike = MEASURES[self.config.measure]
        yield "features", unlike(self._features, edges)
        yield "chain", unlike(self._alike(last), edges)
        yield "entropy", undecided(edges) + undecided(self._alike(last))
        if self.facts.embeddings is not None:
            yield "embeddings", unlike(self.facts.embeddings, last)
        if self.facts.answers is not None:
            yield "answers", unlike(self.facts.answers, logits.softmax(dim=1))
        if self._labelled is not None:
            yield "classes", self._labelled.loss(logits) + self.config.sparsity * sparsity(edges)

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Return the sum of all similarities, of all pairs (p,)."""
        total = self._edges + self._features
        facts = [values for values in (self.facts.embeddings, self.facts.answers) if values is not None]
        for values in (*self._chain, *facts):
            total += self._alike(values.float())
        if self._labelled is not None:
            total += self._same_class(self._labelled)
        return values_of_pairs(total)

    def _same_class(self, labelled: Labelled) -> Tensor:
        n, n_classes = self.known.n_nodes, int(labelled.labels.max()) + 1
        members = torch.zeros(n, n_classes, device=self.runtime.device)
        members[labelled.rows] = functional.one_hot(labelled.labels, n_classes).float()
        return members @ members.T


@torch.no_grad()
def _evened(matrix: Tensor, out: Tensor) -> Tensor:
    """Write the mean of a matrix (n, n) and its transpose."""
    return torch.add(matrix, matrix.T, out=out).div_(2)
