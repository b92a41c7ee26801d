"""Link stealing: nodes that a graph network answers alike are taken for neighbours.

He, Jia, Backes, Gong, Zhang: "Stealing Links from Graph Neural Networks", USENIX Security 2021 (arXiv:2005.02131).

Threat model: an interface that answers about the nodes of its private graph. What the adversary has besides makes the
eight attacks of the paper (table 1): features of the nodes, a part of the edges, a shadow graph from elsewhere.

| ``attack`` | features | edges | shadow | a pair is told by |
|---|---|---|---|---|
| 0 | | | | one distance of the answers f |
| 1 | | | x | d8(f), op4(e(f)) |
| 2 | x | | | one distance of f, less that of a reference g, or beside that of features |
| 3 | | x | | op4(f), d8(f), op4(e(f)) |
| 4 | | x | x | as 1 |
| 5 | x | | x | d8(f), d8(g), d8(features), op4(e(f)), op4(e(g)) |
| 6 | x | x | | op4(f and g), d8(f), d8(g), d8(features), op4(e(f)), op4(e(g)) |
| 7 | x | x | x | as 5 |

d8: eight distances; op4: mean, product, difference and its square; e: entropy. 0 and 2 rank pairs by what tells of them
(sections 4.2, 4.4); the others give it to a perceptron that has learned from known edges, from a shadow graph or from
both. On the shadow graph the answers are those of a GCN of the adversary's own. g is a perceptron on the features.

Fidelity notes (paper / authors' code / here)
- All eight distances are there, turned round so that more is more alike; ``correlation`` is the paper's usual best.
  The code takes an AUC below one half for its mirror image; here the direction is fixed. Distances that are no finite
  numbers are 0 in the code and here, but that a vector of zeros is unlike others by cosine and correlation (0, not 1).
- The reference learns the true labels of training nodes / the same / here the target's likeliest classes, as the
  adversary has no labels; on the shadow graph those of the shadow.
- Attack-2 lists each distance of answers, reference and features, and their difference, by itself; ``sum`` is ours: the
  similarities of answers and features, each standardised over all pairs.
- Pairs: all edges and equally many others / the same / here all pairs, unless the evidence asks for some.
- Learned from: a share of these pairs, of which the adversary knows which are edges, half by default / the same / half
  of the edges (`mi_graph.cases.KNOWN_SHARE`), and as many pairs that are not known to be edges, drawn anew each epoch:
  no pair is known to be none, and an unknown edge is drawn as readily as any other pair.
- Numbers are standardised by the pairs that are learned from / separately by those and by the judged ones, which needs
  all judged pairs at once / by those that are learned from alone.
- Batches of 128, attack 6 of 64 / the same / 128.
- The shadow: another data set with its own classes / two layers, 16 units, at most 100 epochs, stopped by a
  validation, dropout of features too, L2 on the first layer / 20 nodes of each class, 200 steps, no validation, dropout
  of hidden units alone, L2 on all layers. Where the public graph has no classes, the target is asked for the likeliest.
- Features are held in every attack here, and used by 2 and 5 to 7 alone; floors use them always.
- ``embeddings`` compares hidden features, where the interface gives them: ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from mi_attack_link_similarity.shadow import Fit, public_nodes, reference_answers, shadow_answers
from mi_graph.attack import Found, StructureAttack, ask_nodes, filled
from mi_graph.cases import known_of
from mi_graph.evidence import Known
from mi_graph.links import Learning, Links, learned
from mi_graph.networks import EMBED
from mi_graph.pair_features import PairViews, entropies
from mi_graph.similarity import DISTANCES, cosine, scores_of
from micore.contracts import Case, Config, Prepared, Split
from micore.errors import DataError, UsageError
from micore.runtime import Runtime
from micore.target import Target

SHADOW, PARTIAL, FEATURES = (1, 4, 5, 7), (3, 4, 6, 7), (5, 6, 7)
"""Attacks that learn from a shadow graph, from known edges, and of features and the reference."""

SCORES = {0: ("answers", "embeddings"), 2: ("difference", "sum")}
"""What attacks that learn nothing rank pairs by; the first one by default."""


class PrepareConfig(Config):
    """Settings of the adversary's own networks."""

    attack: Literal[0, 1, 2, 3, 4, 5, 6, 7] = Field(
        0,
        description="number in the paper; 2, 5-7 use features, 3, 4, 6, 7 known edges, 1, 4, 5, 7 a public graph",
    )
    hidden: int = Field(16, ge=1, description="width of reference and shadow (code: 16)")
    steps: int = Field(200, ge=1, description="steps of their training (code: 100 epochs)")
    learning_rate: float = Field(1e-2, gt=0, description="of their Adam (code: 1e-2)")
    batch_size: int = Field(4096, ge=1, description="nodes that are asked about at once")


class LinkSimilarityConfig(PrepareConfig):
    """Settings of the attack."""

    evidence: Literal["features", "labels", "edges", "labels+edges"] = Field(
        "features", validate_default=True, description="what is known; the attack uses no labels, its floors do"
    )
    score: Literal["answers", "embeddings", "difference", "sum"] | None = Field(
        None,
        description="attack 0: answers (default), or embeddings: hidden features; attack 2: difference (default), or "
        "sum: similarity of answers, less that of the reference, or beside that of features",
    )
    distance: Literal[
        "cosine", "euclidean", "correlation", "chebyshev", "braycurtis", "canberra", "cityblock", "sqeuclidean"
    ] = Field("correlation", description="attacks 0 and 2: how alike two answers are (paper: the best of eight)")
    epochs: int = Field(50, ge=1, description="of learning from pairs (code: 50)")
    pair_batch: int = Field(128, ge=1, description="pairs that are learned from at once (code: 128; attack 6: 64)")
    pair_learning_rate: float = Field(1e-3, gt=0, description="of the Adam that learns from pairs (code: 1e-3)")

    @field_validator("evidence")
    @classmethod
    def _holds_edges(cls, evidence: str, info: ValidationInfo) -> str:
        number = info.data.get("attack")
        if number in PARTIAL and "edges" not in evidence:
            raise ValueError(f"attack {number} learns from known edges: --evidence edges")
        return evidence

    @field_validator("score")
    @classmethod
    def _is_of_the_attack(cls, score: str | None, info: ValidationInfo) -> str | None:
        number = info.data.get("attack")
        if number is not None and score is not None and score not in SCORES.get(number, ()):
            fitting = next(attack for attack, scores in SCORES.items() if score in scores)
            raise ValueError(f"it is of attack {fitting}, not {number}: -p attack={fitting}")
        return score


class LinkSimilarity(StructureAttack):
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = LinkSimilarityConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {}}
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(PrepareConfig.model_fields)
    config: LinkSimilarityConfig

    @property
    def _fit(self) -> Fit:
        return Fit(self.config.steps, self.config.learning_rate)

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Train a shadow target on the public graph, and its reference, for attacks that learn from it.

        Raises: DataError without a public graph; BudgetExceeded where the target is asked for its nodes' classes.
        """
        if self.config.attack not in SHADOW:
            return None
        graph, nodes, labels = public_nodes(self.config.attack, public)
        if labels is None:
            asked = [target.scores(nodes[i : i + self.config.batch_size]).argmax(dim=1).cpu()
                     for i in range(0, len(nodes), self.config.batch_size)]  # fmt: skip
            labels = torch.cat(asked)
        answers = shadow_answers(graph, nodes, labels, self.config.hidden, self._fit, runtime)
        views = self._views(answers, graph.features.to(answers.device), runtime, "shadow")
        held = {"distances": list(views.distances), "operators": list(views.operators)}
        moved = {name: [part.cpu() for part in parts] for name, parts in held.items()}
        return Prepared(state={**moved, "edges": graph.edges})

    def recover(self, target: Target, case: Case, prepared: Prepared | None, runtime: Runtime) -> Found:
        """Ask about all nodes and compare the answers; nodes without one count as answered like the mean.

        Raises: UsageError for evidence without the edges that the attack learns from; DataError before `prepare`.
        """
        known, service = known_of(case), EMBED if self.config.score == "embeddings" else None
        links = self._links(known, prepared, runtime)
        found, problem = ask_nodes(target, known, self.config.batch_size, service)
        answers = filled(found, known.n_nodes, torch.full((target.n_classes,), 1 / target.n_classes))
        pairs = None if known.pairs is None else known.pairs.to(answers.device)
        if self.config.attack in SCORES:
            return Found(self._compared(known, answers, pairs, runtime), problem)
        views = self._views(answers, known.features.to(answers.device), runtime)
        if self.config.attack in PARTIAL and known.edges is not None:
            links = [*links, Links(views, known.edges)]
        learning = Learning(self.config.epochs, self.config.pair_batch, self.config.pair_learning_rate)
        predictor = learned(links, learning, runtime, "link-similarity", case.id)
        return Found(predictor.scores(views, pairs), problem)

    def _links(self, known: Known, prepared: Prepared | None, runtime: Runtime) -> list[Links]:
        """Return the edges of the shadow graph, where the attack learns from them; check what else it needs."""
        if self.config.attack in PARTIAL and known.edges is None:
            raise UsageError(f"attack {self.config.attack} learns from known edges", hint="--evidence edges")
        if self.config.attack not in SHADOW:
            return []
        if prepared is None:
            raise DataError(f"attack {self.config.attack} of link-similarity was not prepared")
        views = PairViews(tuple(prepared.state["distances"]), tuple(prepared.state["operators"]))
        return [Links(views.to(runtime.device), prepared.state["edges"])]

    def _views(self, answers: Tensor, features: Tensor, runtime: Runtime, *purpose: str) -> PairViews:
        """Return what pairs are told by, of answers (n, classes) and features (n, F)."""
        unsure = entropies(answers)
        if self.config.attack not in FEATURES:
            return PairViews((answers,), (answers, unsure) if self.config.attack == 3 else (unsure,))
        reference = self._reference(answers, features, runtime, *purpose)
        plain = (answers, reference) if self.config.attack == 6 else ()
        return PairViews((answers, reference, features), (*plain, unsure, entropies(reference)))

    def _reference(self, answers: Tensor, features: Tensor, runtime: Runtime, *purpose: str) -> Tensor:
        return reference_answers(features, answers, self.config.hidden, self._fit, runtime, *purpose)

    def _compared(self, known: Known, answers: Tensor, pairs: Tensor | None, runtime: Runtime) -> Tensor:
        """Return how alike answers (n, d) to pairs are, less or plus what features tell (attack 2), (p,)."""
        distance, features = DISTANCES[self.config.distance], known.features.to(answers.device)
        alike = scores_of(answers, distance, pairs)
        if self.config.attack == 0:
            return alike
        if self.config.score == "sum":
            return _standard(alike) + _standard(scores_of(features, cosine, pairs))
        return alike - scores_of(self._reference(answers, features, runtime), distance, pairs)


def _standard(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp(min=1e-12)
