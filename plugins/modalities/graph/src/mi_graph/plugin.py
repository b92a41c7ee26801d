"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DatasetSpec, ModalitySpec, ModelSpec

TRAINING = {
    "epochs": 200, "batch_size": 4096, "learning_rate": 1e-2, "weight_decay": 5e-2, "augment": "none",
}  # fmt: skip
"""All nodes at once, as graph networks are trained by their authors; weight decay is decoupled here."""


@hookimpl
def mi_modalities() -> Iterable[ModalitySpec]:
    return [
        ModalitySpec(
            name="graph",
            target="mi_graph.modality:GraphModality",
            summary="Graphs and their nodes: the edges that a graph network was trained and is used on",
            default_dataset="blocks",
            default_model="gcn",
            default_attack="link-similarity",
        )
    ]


@hookimpl
def mi_datasets() -> Iterable[DatasetSpec]:
    return [
        _dataset("blocks", "bundled:open_blocks", "Drawn communities whose nodes use words, bundled", "Apache-2.0",
                 bundled=True, has_public=True),
        _dataset("karate", "bundled:open_karate", "Zachary's karate club, of networkx", "public facts", bundled=True),
        _dataset("les-mis", "bundled:open_les_mis", "Characters of Les Miserables, of networkx", "public facts",
                 bundled=True),
        _dataset("npz", "files:open_npz", "npz:PATH, a graph as sparse matrices in a numpy archive", "see the file"),
        _dataset("planetoid", "files:open_planetoid", "planetoid:DIR/ind.NAME, Planetoid's files", "see the files"),
        _dataset("edgelist", "files:open_edgelist", "edgelist:PATH, your graph, with a CSV of its nodes", "your own"),
        _dataset("motifs", "motifs:open_motifs", "Drawn small graphs, told apart by a shape in them, bundled",
                 "Apache-2.0", bundled=True, has_public=True),
        _dataset("tu", "tu:open_tu", "tu:PATH, many graphs, a TU data set's folder or zip", "see the data",
                 has_public=True),
        _dataset("pyg", "files:open_pyg", "pyg:PATH, one graph that PyTorch Geometric has processed", "see the data"),
    ]  # fmt: skip


def _dataset(
    name: str, opener: str, summary: str, licence: str, *, bundled: bool = False, has_public: bool = False
) -> DatasetSpec:
    splits = ("private", "holdout", "public") if has_public else ("private", "holdout")
    return DatasetSpec(
        name=name, target=f"mi_graph.datasets.{opener}", summary=summary, modality="graph", licence=licence,
        bundled=bundled, splits=splits,
    )  # fmt: skip


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    return [
        _model("gcn", "Graph convolutions", "Kipf and Welling, ICLR 2017"),
        _model("sage", "GraphSAGE with mean aggregation", "Hamilton et al., NeurIPS 2017"),
        _model("gat", "Graph attention", "Velickovic et al., ICLR 2018"),
        _model("gin", "Graph isomorphism network", "Xu et al., ICLR 2019"),
        _model("rgcn", "Relational graph convolutions, for kinds of edges", "Schlichtkrull et al., ESWC 2018"),
    ]


def _model(name: str, summary: str, paper: str) -> ModelSpec:
    return ModelSpec(
        name=name, target=f"mi_graph.networks:{name}", summary=summary, paper=paper, modality="graph", roles=("gnn",),
        training=TRAINING,
    )  # fmt: skip
