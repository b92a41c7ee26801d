"""Link stealing by similarity: nodes that a graph network answers alike are taken for neighbours.

He, Jia, Backes, Gong, Zhang: "Stealing Links from Graph Neural Networks", USENIX Security 2021 (arXiv:2005.02131).

Threat model: an interface that answers about the nodes of its private graph. Of these the adversary knows the numbers,
and for ``difference`` and ``sum`` the features.

- ``score=answers`` is Attack-0: how alike the target answers two nodes (section 4.2).
- ``difference`` and ``sum`` are Attack-2: a reference without a graph, a perceptron on the features, learns the
  target's answers. How much more alike than by the reference are two nodes? Or how alike by answers and by features?

Fidelity notes (paper / authors' code / here)
- All eight distances are there, turned round so that more is more alike; ``correlation`` is the paper's usual best.
  The code takes an AUC below one half for its mirror image; here the direction is fixed.
- The reference learns the true labels of training nodes / the same / here the target's likeliest classes, as the
  adversary has no labels.
- Attack-2 lists each distance of answers, reference and features, and their difference, by itself; ``sum`` is ours: the
  similarities of answers and features, each standardised over all pairs.
- Pairs: all edges and equally many others / the same / here all pairs, unless the evidence asks for some.
- ``embeddings`` compares hidden features, where the interface gives them: ours.
- Attacks 1, 3 to 7, which learn from a known part of the graph or from another graph, are not here yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mi_graph.attack import Found, StructureAttack, ask_nodes, filled
from mi_graph.cases import known_of
from mi_graph.evidence import Known
from mi_graph.networks import EMBED
from mi_graph.similarity import DISTANCES, cosine, scores_of
from micore.contracts import Case, Config, Prepared
from micore.runtime import Runtime
from micore.target import Target


class LinkSimilarityConfig(Config):
    """Settings of the attack."""

    evidence: Literal["features", "labels"] = Field(
        "features", description="what is known; the attack uses no labels, its floors do"
    )
    score: Literal["answers", "embeddings", "difference", "sum"] = Field(
        "answers",
        description="answers: Attack-0; embeddings: hidden features; difference, sum: Attack-2, with a reference",
    )
    distance: Literal[
        "cosine", "euclidean", "correlation", "chebyshev", "braycurtis", "canberra", "cityblock", "sqeuclidean"
    ] = Field("correlation", description="how alike two answers are (paper: the best of eight)")
    hidden: int = Field(16, ge=1, description="width of the reference (code: 16)")
    steps: int = Field(200, ge=1, description="steps of its training (code: 100 epochs)")
    learning_rate: float = Field(1e-2, gt=0, description="of its Adam (code: 1e-2)")
    batch_size: int = Field(4096, ge=1, description="nodes that are asked about at once")


class LinkSimilarity(StructureAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = LinkSimilarityConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {}}
    config: LinkSimilarityConfig

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Ask about all nodes and compare the answers; nodes without one count as answered like the mean."""
        known, service = known_of(case), EMBED if self.config.score == "embeddings" else None
        found, problem = ask_nodes(target, known, self.config.batch_size, service)
        answers = filled(found, known.n_nodes, torch.full((target.n_classes,), 1 / target.n_classes))
        return Found(self._compared(known, answers, runtime), problem)

    def _compared(self, known: Known, answers: Tensor, runtime: Runtime) -> Tensor:
        distance = DISTANCES[self.config.distance]
        pairs = None if known.pairs is None else known.pairs.to(answers.device)
        alike = scores_of(answers, distance, pairs)
        if self.config.score == "difference":
            alike = alike - scores_of(self._reference(known, answers, runtime), distance, pairs)
        if self.config.score == "sum":
            features = known.features.to(answers.device)
            alike = _standard(alike) + _standard(scores_of(features, cosine, pairs))
        return alike

    def _reference(self, known: Known, answers: Tensor, runtime: Runtime) -> Tensor:
        """Return what a perceptron answers (n, classes) that has learned the target's classes from features alone."""
        features, labels = known.features.to(answers.device), answers.argmax(dim=1)
        with runtime.seeded("link-similarity", "reference"):
            width, n_classes = features.shape[1], answers.shape[1]
            network = nn.Sequential(
                nn.Linear(width, self.config.hidden), nn.ReLU(), nn.Linear(self.config.hidden, n_classes)
            )
        runtime.place(network)
        optimizer = torch.optim.Adam(network.parameters(), self.config.learning_rate, weight_decay=5e-4)
        for _ in range(self.config.steps):
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(network(features), labels).backward()
            optimizer.step()
        with torch.no_grad():
            found: Tensor = network(features).softmax(dim=1)
        return found


def _standard(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp(min=1e-12)
