"""The planted problems that conformance checks attack and defend: a small graph of communities, and small graphs."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from mi_graph.batch import Graphs
from mi_graph.cases import KEPT, KNOWN, marked
from mi_graph.colours import colour_counts, kernel
from mi_graph.datasets.bundled import open_blocks
from mi_graph.datasets.motifs import open_motifs
from mi_graph.graphs import Graph, likeliest, n_pairs, places_of
from mi_graph.measures import auc
from mi_graph.networks import gcn, gin, sage
from mi_graph.whole_cases import known_graph_of
from micore.artifacts import PluginUse
from micore.contracts import Case, Samples
from micore.kit.training import TrainingConfig
from micore.runtime import Random
from micore.testing.setting import ToySetting

NODES = 60
TRAINING = TrainingConfig.model_validate({
    "epochs": 60, "batch_size": 64, "learning_rate": 2e-2, "augment": "none", "weight_decay": 1e-3,
})  # fmt: skip


def toys() -> list[ToySetting]:
    """Return the problems of goal ``structure``: a GCN that classifies nodes gives edges away; and `_many`."""
    private = open_blocks(None, nodes=NODES, groups=3, degree=4.0, words=24, per_class=15, topical=0.6, homophily=0.9)

    def judge(case: Case, samples: Samples) -> Tensor:
        truth = marked(private, None, getattr(case.evidence, "edges", None))
        return torch.tensor([_contrast(graph, truth) for graph, _ in samples.each()])

    return [
        ToySetting(
            modality="graph",
            goals=("structure",),
            role="gnn",
            dataset=private,
            model=PluginUse(name="gcn"),
            build=gcn,
            judge_model=PluginUse(name="sage"),
            judge_build=sage,
            judge=judge,
            problem=problem,
            noise=_noise,
            training=TRAINING,
        ),
        _many(),
    ]


def problem(samples: Samples) -> str | None:
    """Tell what is wrong with samples that should be graphs."""
    if not isinstance(samples, Graphs):
        return f"samples are {type(samples).__name__}, not graphs"
    tensors = [part for graph in samples.graphs for part in (graph.features, graph.scores) if part is not None]
    return None if all(bool(part.isfinite().all()) for part in tensors) else "features or scores are not finite"


def _contrast(graph: Graph, truth: Graph) -> float:
    """Return how much better than chance a graph tells true edges from other pairs: 2 AUC - 1."""
    if graph.n_nodes != truth.n_nodes or truth.scores is None:
        return 0.0
    scores = graph.scores
    if scores is None:
        scores = torch.zeros(n_pairs(graph.n_nodes)).index_fill(0, places_of(graph.edges, graph.n_nodes), 1.0)
    counted = truth.scores != KNOWN
    return 2 * auc(scores[counted], truth.scores[counted] == KEPT) - 1


def _noise(n: int, rng: Random) -> Graphs:
    scores = [rng.uniform((n_pairs(NODES),)) for _ in range(n)]
    features = torch.empty(NODES, 0)
    return Graphs.whole([Graph(features, likeliest(part, NODES, 2 * NODES), scores=part) for part in scores])


# whole graphs -----------------------------------------------------------------------------------------------------


def _many() -> ToySetting:
    """Return the problem of goal ``structure`` on many graphs: what does the embedding of a GIN give away of one?"""
    data = open_motifs(None, graphs=90, private=0.3, public=0.5)
    private, public = (data.split(name).graphs for name in ("private", "public"))
    looks = [_look(graph) for graph in private]
    usual = [sum(kernel(_look(other), look) for other in public) / len(public) for look in looks]

    def judge(case: Case, samples: Samples) -> Tensor:
        row = known_graph_of(case).number
        found = [(kernel(_look(graph), looks[row]) - usual[row]) / (1 - usual[row]) for graph, _ in samples.each()]
        return torch.tensor(found).clamp(min=-0.5)  # a graph unlike all others does not outweigh several good ones

    return ToySetting(
        modality="graph", goals=("structure",), role="gnn", dataset=data, model=PluginUse(name="gin"), build=gin,
        judge_model=PluginUse(name="sage"), judge_build=sage, judge=judge, problem=problem, noise=_noise,
        training=TRAINING,
    )  # fmt: skip


def _look(graph: Graph) -> Counter[bytes]:
    """Count nodes by their degrees: on few graphs an attack finds little more."""
    return colour_counts(graph, rounds=0)
