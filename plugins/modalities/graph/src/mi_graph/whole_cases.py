"""Goal ``structure`` where the private graphs are many: each is a case, and nobody names its nodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mi_graph.batch import Graphs
from mi_graph.datasets.many import GraphsDataset
from mi_graph.evidence import GRAPH_KINDS, KnownGraph
from mi_graph.graphs import Graph
from micore.contracts import Case, Reconstruction, Truth
from micore.errors import UsageError
from micore.kit.choice import read_rows

PREFIX = "graph-"
SPREAD = 50
"""How many private graphs a run attacks when the user chooses none: the first ones, in an order that is random."""


def whole_cases(dataset: GraphsDataset, choice: str | None, evidence: str | None) -> list[Case]:
    """Return a case for each chosen private graph: its number, and how many nodes it has.

    Raises: UsageError for a choice or evidence that does not fit.
    """
    kind = evidence or GRAPH_KINDS[0]
    if kind not in GRAPH_KINDS:
        raise UsageError(
            f"of many private graphs not the {kind!r} are known, but their {' or '.join(GRAPH_KINDS)}",
            hint="an attack on whole graphs, such as embedding-to-graph",
        )
    graphs = dataset.split("private").graphs
    rows = list(range(min(SPREAD, len(graphs)))) if choice is None else read_rows(choice, len(graphs))
    return [
        Case(id=f"{PREFIX}{row}", goal="structure", evidence=KnownGraph(number=row, n_nodes=graphs[row].n_nodes))
        for row in rows
    ]


def known_graph_of(case: Case) -> KnownGraph:
    """Return what is known of a case's graph.

    Raises: UsageError for a case of another kind.
    """
    if not isinstance(case.evidence, KnownGraph):
        raise UsageError(f"case {case.id} is about no whole graph")
    return case.evidence


def whole_truths(cases: Sequence[Case], dataset: GraphsDataset) -> dict[str, Truth]:
    """Return the private graph behind each case, without features; no scores, as the order of nodes means nothing."""
    graphs = dataset.split("private").graphs
    return {case.id: Truth(sample=bare(graphs[_row_of(case)])) for case in cases}


def _row_of(case: Case) -> int:
    """Return which private graph a case is about: also of a case that a run has stored, without its evidence."""
    return int(case.id.removeprefix(PREFIX))


def bare(graph: Graph) -> Graphs:
    """Return a graph without features as a sample."""
    return Graphs.whole([Graph(graph.features[:, :0], graph.edges)])


def recovered(case: Case, graph: Graph) -> Reconstruction:
    """Give back a graph, without its features."""
    return Reconstruction(case=case, samples=bare(graph), scores=torch.zeros(1))
