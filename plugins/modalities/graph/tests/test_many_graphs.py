"""Data sets of many graphs: three parts, the files of the TU collection, bad ones, and what the networks learn."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import networkx
import pytest
import torch

from mi_graph.datasets.motifs import open_motifs
from mi_graph.datasets.tu import open_tu
from mi_graph.graphs import Graph
from mi_graph.modality import GraphModality
from mi_graph.networks import gcn, gin
from mi_graph.plugin import TRAINING
from mi_graph.pyg import read_tu_data
from micore.errors import DataError
from micore.kit.training import Trainer, TrainingConfig, accuracy, predict
from micore.runtime import Runtime

ROOT = os.environ.get("MI_DATA_ROOT")
FILES = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n6, 7\n7, 6\n8, 9\n9, 8\n",
    "graph_indicator": "1\n1\n1\n2\n2\n3\n3\n4\n4\n5\n6\n",
    "graph_labels": "-1\n-1\n-1\n1\n1\n1\n",
    "node_labels": "3\n0\n3\n0\n0\n0\n0\n0\n0\n3\n5\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, text in FILES.items():
        (tmp_path / f"TOY_{part}.txt").write_text(text)
    return tmp_path


def shape(graph: Graph) -> networkx.Graph:
    drawn = networkx.empty_graph(graph.n_nodes)
    drawn.add_edges_from(graph.edges.T.tolist())
    return drawn


def test_parts_share_no_graph_and_have_every_class() -> None:
    motifs = open_motifs(None, graphs=60, kinds=4)
    rows = torch.cat(list(motifs.rows.values()))
    assert sorted(rows.tolist()) == list(range(60))
    assert [len(motifs.split(part)) for part in ("private", "holdout", "public")] == [24, 12, 24]
    for rows in motifs.rows.values():
        assert motifs.labels[rows].unique().tolist() == [0, 1, 2, 3]
    assert motifs.split("public").labels is None
    assert open_motifs(None, graphs=60, kinds=4, seed=1).fingerprint != motifs.fingerprint
    with pytest.raises(DataError, match="no split 'test'"):
        motifs.split("test")
    with pytest.raises(DataError, match="leave none that is held out"):
        open_motifs(None, private=0.5, public=0.5)


def test_drawn_graphs_hold_the_shape_of_their_class() -> None:
    motifs = open_motifs(None, graphs=80, kinds=4)
    for graph, label in zip(motifs.graphs, motifs.labels.tolist(), strict=True):
        found = shape(graph)
        cycles = networkx.cycle_basis(found)
        assert networkx.is_connected(found)
        assert 8 <= graph.n_nodes <= 16
        match motifs.classes[label]:
            case "clique":
                assert max(map(len, networkx.find_cliques(found))) >= 4
            case "ring":
                assert [len(cycle) >= 4 for cycle in cycles] == [True]
            case "star":
                assert not cycles
                assert max(dict(found.degree).values()) >= 3
            case "ladder":
                assert cycles
                assert max(map(len, cycles)) == 4


def test_a_folder_and_its_zip_are_read_alike(folder: Path) -> None:
    data = open_tu(str(folder))
    with zipfile.ZipFile(folder / "TOY.zip", "w") as archive:
        for part in FILES:
            archive.write(folder / f"TOY_{part}.txt", f"TOY/TOY_{part}.txt")
    assert open_tu(str(folder / "TOY.zip")).fingerprint == data.fingerprint
    assert (len(data.graphs), data.classes, data.labels.tolist()) == (6, ("-1", "1"), [0, 0, 0, 1, 1, 1])
    assert [(graph.n_nodes, graph.n_edges) for graph in data.graphs] == [(3, 2), (2, 1), (2, 1), (2, 1), (1, 0), (1, 0)]
    first = data.graphs[0]
    assert first.features[first.degrees().argmax()].tolist() == [1, 0, 0]  # the node in the middle, of label 0
    assert data.graphs[5].features.tolist() == [[0, 0, 1]]


def test_without_features_there_is_a_constant_and_attributes_are_standardised(folder: Path) -> None:
    (folder / "TOY_node_labels.txt").unlink()
    plain = open_tu(str(folder))
    assert all(graph.features.eq(1).all() and graph.features.shape[1] == 1 for graph in plain.graphs)
    (folder / "TOY_node_attributes.txt").write_text("".join(f"{node}, 2.5\n" for node in range(11)))
    values = torch.cat([graph.features for graph in open_tu(str(folder)).graphs])
    torch.testing.assert_close(values.mean(dim=0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(values.std(dim=0, correction=0), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("A", "1, 2\n2, 4\n", "TOY_A.txt, line 2: an edge from graph 1 to graph 2"),
        ("A", "1, 2\n2, 12\n", r"TOY_A.txt, line 2: edge \[2, 12\], there are nodes 1 to 11"),
        ("A", "1, 2\n0, 1\n", r"line 2: edge \[0, 1\]"),
        ("A", "1, 2\n3\n", "TOY_A.txt, line 2: 1 values, not 2"),
        ("A", "1, 2\n2, x\n", "TOY_A.txt, line 2: 'x' is no whole number"),
        ("A", "1, 2\n\n2, 3\n", "TOY_A.txt, line 2: '' is no whole number"),
        ("A", "1, 2\n2, 2\n", "TOY_A.txt: 1 self-loops"),
        ("A", "1, 2\n1, 2\n2, 3\n", "TOY_A.txt: 1 repeated edges"),
        ("A", "1, 2\n2, 1\n2, 3\n", "1 edges in one direction only"),
        ("A", "", "TOY_A.txt is empty"),
        ("graph_indicator", FILES["graph_indicator"].replace("6", "7"), "line 11: graph 7, there are labels of 6"),
        ("graph_indicator", FILES["graph_indicator"].replace("5", "4"), "graph 5 has no node"),
        ("graph_labels", "1\n1\n1\n2\n2\n2.5\n", "TOY_graph_labels.txt, line 6: '2.5' is no whole number"),
        ("graph_labels", "1\n1\n1\n1\n2\n2\n", "class 2 has 2 graphs, too few for three parts"),
        ("node_labels", "1\n2\n", "TOY_node_labels.txt: 2 lines for 11 nodes"),
        ("node_attributes", "1, 2\n" * 9 + "1\n1, 2\n", "TOY_node_attributes.txt, line 10: 1 values, not 2"),
        ("node_attributes", "0.5\n" * 10 + "nan\n", "TOY_node_attributes.txt, line 11: 'nan' is no finite number"),
    ],
)
def test_bad_files_are_refused_with_the_place(folder: Path, file: str, text: str, message: str) -> None:
    (folder / f"TOY_{file}.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_tu(str(folder))


def test_cleaning_drops_what_is_no_undirected_edge(folder: Path) -> None:
    (folder / "TOY_A.txt").write_text("1, 2\n2, 1\n2, 2\n2, 3\n2, 3\n")
    assert [graph.n_edges for graph in open_tu(str(folder), clean=True).graphs] == [2, 0, 0, 0, 0, 0]


def test_missing_files_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs a place"):
        open_tu(None)
    with pytest.raises(DataError, match=r"holds no file NAME_A\.txt"):
        open_tu(str(tmp_path / "nothing"))
    (folder / "TOY_graph_labels.txt").unlink()
    with pytest.raises(DataError, match=r"holds no TOY_graph_labels\.txt"):
        open_tu(str(folder))
    (folder / "TWO_A.txt").write_text("1, 2\n")
    with pytest.raises(DataError, match=r"holds 2 files NAME_A\.txt"):
        open_tu(str(folder))
    (folder / "broken.zip").write_text("no zip")
    with pytest.raises(DataError, match="cannot be read"):
        open_tu(str(folder / "broken.zip"))


@pytest.mark.data
@pytest.mark.skipif(not ROOT, reason="MI_DATA_ROOT is not set")
@pytest.mark.parametrize("name", ["MUTAG", "ENZYMES"])
def test_real_files_are_those_that_pytorch_geometric_reads(name: str, tmp_path: Path) -> None:
    path = Path(str(ROOT)) / "graph" / name / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    data = open_tu(str(path))
    together, slices, _ = read_tu_data(str(tmp_path / name), name)
    sizes = slices["x"].diff().tolist()
    edges = (slices["edge_index"].diff() // 2).tolist()
    assert [(graph.n_nodes, graph.n_edges) for graph in data.graphs] == list(zip(sizes, edges, strict=True))
    assert data.labels.tolist() == together.y.tolist()
    assert data.input.shape == (together.x.shape[1],)
    row = data.rows["private"][0]
    start = int(slices["edge_index"][row])
    theirs = networkx.empty_graph(sizes[row])
    theirs.add_edges_from(together.edge_index[:, start : int(slices["edge_index"][row + 1])].T.tolist())
    assert networkx.faster_could_be_isomorphic(theirs, shape(data.split("private").graphs[0]))


@pytest.mark.parametrize("kind", [gcn, gin])
def test_networks_learn_to_tell_graphs_apart(kind: object) -> None:
    data, runtime, modality = open_motifs(None), Runtime.create("cpu"), GraphModality()
    with runtime.seeded("network"):
        network = kind(len(data.classes), data.input)  # type: ignore[operator]
    adapter, held_out = modality.adapter(data.input), data.split("holdout")
    config = TrainingConfig.model_validate(TRAINING)
    Trainer(
        network, data.split("private"), config=config, adapter=adapter, augment=modality.augment, runtime=runtime
    ).fit()
    assert held_out.labels is not None
    assert accuracy(predict(network, held_out.take, len(held_out), adapter, runtime), held_out.labels) > 0.65
