"""Scores of pairs against the edges of the private graph.

- ``auc``, ``average-precision``: over all pairs that the attack was asked about; ``average-precision-balanced``: over
  the edges and as many other pairs, as papers have it, far higher for the same scores; ``precision-at-edges``: among as
  many pairs as there are edges.
- ``gain``: the AUC above the best that the same knowledge gives without a target (the floors ``feature-cosine``,
  ``same-label``, ``cosine-and-label``, where edges are known ``common-neighbours``, ``feature-links`` and
  ``neighbour-links``, or guessing). The headline: features and classes alone tell many edges.
- ``auc-kept-removed``, where edges were taken out of the graph before the target was trained: edges that the target has
  against edges that it never saw. Both are as likely by features and classes, so that 0.5 means: nothing was read from
  the target's graph. Removed edges count in no other figure.
- ``degree-correlation``: of each node's edges among the recovered with those it has; ``clustering-correlation``: of its
  clustering coefficient among the recovered edges with its true one, over all nodes, 0 for those with one neighbour or
  none; ``clustering-error``: how far the mean coefficient is off.

Edges that the adversary held count nowhere: they are neither recovered nor missed.

Intervals are over nodes, drawn again with all their pairs (2.5 to 97.5 %).

Where the private graphs are many the figures are others: see `mi_evaluator_edges.whole`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_edges import whole
from mi_evaluator_edges.clustering import clustering
from mi_graph.baselines import EQUAL_KNOWLEDGE
from mi_graph.cases import KEPT, KNOWN, OTHER, REMOVED
from mi_graph.graphs import Graph, n_pairs, pairs_at, places_of
from mi_graph.measures import Ranking
from micore.contracts import Config, Interval, Measurement, Reference, Subject
from micore.errors import DataError
from micore.runtime import Random, Runtime, derive_seed

IDENTITY = "edges@pairs"
GUESSING = 0.5


class EdgesConfig(Config):
    """Settings of the evaluator."""

    resamples: int = Field(200, ge=10, description="draws of nodes behind each interval")
    interval_pairs: int = Field(200_000, ge=1000, description="pairs without an edge that intervals are computed on")


@dataclass(frozen=True)
class Judged:
    """Scores of a subject for the pairs of one graph, and what the pairs are.

    scores (p,), truth (p,): see `mi_graph.cases.marked`; recovered: the edges that were given back. Nothing of the size
    of all pairs is kept beside these: a run has one for each floor.
    """

    scores: Tensor
    truth: Tensor
    recovered: Graph
    private: Graph

    @property
    def seed(self) -> int:
        """What all draws for this private graph derive from."""
        return derive_seed("edges", self.private.fingerprint)

    @property
    def counted(self) -> Tensor:
        """The pairs that count, bool (p,): all but removed edges, and those that were known."""
        return (self.truth == KEPT) | (self.truth == OTHER)

    def figures(self, rng: Random) -> dict[str, float]:
        """Return the figures but for the gain."""
        is_edge, counted = self.truth == KEPT, self.counted
        balanced = self._balanced(rng)
        ranking = Ranking.of(self.scores[counted], is_edge[counted])
        found = {
            "auc": ranking.auc(),
            "average-precision": ranking.average_precision(),
            "average-precision-balanced": Ranking.of(self.scores[balanced], is_edge[balanced]).average_precision(),
            "precision-at-edges": ranking.precision_at(int(is_edge.sum())),
            **_of_shape(*self._unknown()),
        }
        if bool((self.truth == REMOVED).any()):
            edges = self.truth >= REMOVED
            found["auc-kept-removed"] = Ranking.of(self.scores[edges], is_edge[edges]).auc()
        return found

    def _balanced(self, rng: Random) -> Tensor:
        """Return the places of all edges that count, and of as many other pairs."""
        edges, others = ((self.truth == kind).nonzero().flatten() for kind in (KEPT, OTHER))
        return torch.cat([edges, others[rng.permutation(len(others))[: len(edges)]]])

    def pairs(self, rows: Tensor) -> Tensor:
        """Return which pairs these are, (2, r): of all pairs of a large graph nobody keeps a list."""
        asked = self.private.pairs
        return pairs_at(rows, self.private.n_nodes) if asked is None else asked[:, rows]

    def _unknown(self) -> tuple[Graph, Graph]:
        """Return the recovered and the true graph without the edges that were known before."""
        known = self.pairs((self.truth == KNOWN).nonzero().flatten())
        return _without(self.recovered, known), _without(self.private, known)


def _without(graph: Graph, edges: Tensor) -> Graph:
    n = graph.n_nodes
    is_left = ~torch.isin(places_of(graph.edges, n), places_of(edges, n))
    return Graph(torch.empty(n, 0), graph.edges[:, is_left])


def _of_shape(found: Graph, private: Graph) -> dict[str, float]:
    """Return how well each node's number of edges, and how many of its neighbours are joined, came back."""
    shares = clustering(found), clustering(private)
    return {
        "degree-correlation": _correlation(found.degrees(), private.degrees()),
        "clustering-correlation": _correlation(*shares),
        "clustering-error": float((shares[0].mean() - shares[1].mean()).abs()),
    }


def _correlation(one: Tensor, two: Tensor) -> float:
    """Return Pearson's correlation, 0 where one side has no spread."""
    one, two = (values.double() - values.double().mean() for values in (one, two))
    size = one.norm() * two.norm()
    return float((one * two).sum() / size) if size > 0 else 0.0


class EdgesEvaluator:
    """Judge recovered graphs by their edges (see the module's documentation)."""

    Config: ClassVar[type[Config]] = EdgesConfig

    def __init__(self, config: EdgesConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike, each case by its first sample; values are means over cases.

        Raises: DataError for a case without a truth, or a graph of another size.
        """
        if whole.is_whole(reference):
            return whole.measured(subjects, reference)
        found: list[Measurement] = []
        case_ids = [item.case.id for item in subjects[0].reconstructions]
        judged = {subject.name: _judged(subject, reference) for subject in subjects}
        alone = {name: [graph.figures(Random(graph.seed)) for graph in graphs] for name, graphs in judged.items()}
        for name, graphs in judged.items():
            figures, intervals = self._compared(name, judged, alone)
            found += [
                Measurement(
                    name=figure, subject=name, value=sum(values) / len(values), interval=intervals.get(figure),
                    n=len(values), clusters=len(values), unit=UNITS.get(figure, "share"),
                    direction="down" if figure in ERRORS else "up", evaluator=IDENTITY,
                    per_case=dict(zip(case_ids, values, strict=True)), notes=_notes(graphs[0]),
                )
                for figure, values in figures.items()
            ]  # fmt: skip
        return found

    def _compared(
        self, name: str, judged: Mapping[str, Sequence[Judged]], alone: Mapping[str, Sequence[Mapping[str, float]]]
    ) -> tuple[dict[str, list[float]], dict[str, Interval]]:
        """Return the figures of each graph, now with the gain, and intervals where there is one graph."""
        floors = [floor for floor in EQUAL_KNOWLEDGE if floor in judged]
        figures: dict[str, list[float]] = {}
        for place, found in enumerate(alone[name]):
            best = max([GUESSING, *(alone[floor][place]["auc"] for floor in floors)])
            for figure, value in {**found, "gain": found["auc"] - best}.items():
                figures.setdefault(figure, []).append(value)
        if len(judged[name]) > 1:
            return figures, {}
        (graph,), values = judged[name], {figure: value for figure, (value,) in figures.items()}
        return figures, self._intervals(graph, [judged[floor][0] for floor in floors], values)

    def _intervals(
        self, graph: Judged, floors: Sequence[Judged], values: Mapping[str, float]
    ) -> dict[str, Interval]:  # fmt: skip
        """Draw nodes again: a pair counts as often as both its nodes were drawn, one after the other."""
        rng = Random(graph.seed)
        rows = _interval_rows(graph, self.config.interval_pairs, rng)
        scale = torch.where(
            graph.truth[rows] == OTHER, float((graph.truth == OTHER).sum() / (graph.truth[rows] == OTHER).sum()), 1.0
        )
        is_edge, n = graph.truth[rows] == KEPT, graph.private.n_nodes
        one, two = graph.pairs(rows)
        own, others = (
            [Ranking.of(item.scores[rows], is_edge) for item in items] for items in ([graph], floors)
        )  # fmt: skip
        draws: dict[str, list[float]] = {"auc": [], "average-precision": [], "gain": []}
        for _ in range(self.config.resamples):
            times = torch.bincount(rng.integers(n, (n,)), minlength=n).double()
            weights = times[one] * times[two] * scale
            auc = own[0].auc(weights)
            draws["auc"].append(auc)
            draws["average-precision"].append(own[0].average_precision(weights))
            draws["gain"].append(auc - max([GUESSING, *(item.auc(weights) for item in others)]))
        return {figure: _interval(found, values[figure]) for figure, found in draws.items()}


def _interval_rows(graph: Judged, limit: int, rng: Random) -> Tensor:
    """Return the places of all edges that count, and of at most so many other pairs."""
    others = (graph.truth == OTHER).nonzero().flatten()
    if len(others) > limit:
        others = others[rng.integers(len(others), (limit,)).unique()]
    return torch.cat([(graph.truth == KEPT).nonzero().flatten(), others])


def _interval(draws: Sequence[float], value: float) -> Interval:
    low, high = (
        torch.tensor(draws, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    )
    return Interval(low=min(low, value), high=max(high, value))


UNITS: Mapping[str, str] = {
    "gain": "AUC", "degree-correlation": "correlation", "clustering-correlation": "correlation",
}  # fmt: skip

ERRORS = ("clustering-error",)
"""Figures of which less is more leakage."""


def _judged(subject: Subject, reference: Reference) -> list[Judged]:
    """Return the first sample of each case beside its truth."""
    found = []
    for item in subject.reconstructions:
        if item.case.id not in reference.truth:
            raise DataError(f"edges: nobody knows the truth of {item.case.id}")
        truth: Graph = reference.truth[item.case.id].sample.graphs[0]
        graph = item.samples[:1].graphs[0]
        if graph.n_nodes != truth.n_nodes or truth.scores is None:
            raise DataError(
                f"edges: {subject.name} gives a graph of {graph.n_nodes} nodes, the private one has {truth.n_nodes}"
            )
        scores = graph.scores if graph.scores is not None else _as_scores(graph, truth)
        if len(scores) != len(truth.scores):
            raise DataError(f"edges: {subject.name} scores {len(scores)} pairs of {len(truth.scores)}")
        found.append(Judged(scores.cpu(), truth.scores, graph, truth))
    return found


def _as_scores(graph: Graph, truth: Graph) -> Tensor:
    """Return 1 for pairs that are edges of a graph, else 0."""
    places = places_of(graph.edges, graph.n_nodes)
    if truth.pairs is None:
        return torch.zeros(n_pairs(graph.n_nodes)).index_fill(0, places, 1.0)
    return torch.isin(places_of(truth.pairs, graph.n_nodes), places).float()


def _notes(graph: Judged) -> tuple[str, ...]:
    n_edges, n_pairs, n_known = (
        int(part.sum()) for part in (graph.truth == KEPT, graph.counted, graph.truth == KNOWN)
    )  # fmt: skip
    note = f"{n_edges} edges among {n_pairs} pairs: by chance a precision of {n_edges / n_pairs:.4f}"
    return (note, *([f"{n_known} known edges are left out"] if n_known else []))
