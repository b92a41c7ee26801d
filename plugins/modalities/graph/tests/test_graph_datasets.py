"""Data sets: their facts, what removing edges does, a user's own files, and bad ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from scipy import sparse

from mi_graph.cases import marked
from mi_graph.datasets.bundled import open_blocks, open_karate, open_les_mis
from mi_graph.datasets.files import open_edgelist, open_npz, open_planetoid, open_pyg
from mi_graph.pyg import Data
from micore.errors import DataError

ROOT = os.environ.get("MI_DATA_ROOT")


def test_bundled_graphs_have_their_known_sizes() -> None:
    karate, les_mis = open_karate(None), open_les_mis(None)
    assert (karate.graph.n_nodes, karate.graph.n_edges, len(karate.classes)) == (34, 78, 2)
    assert (les_mis.graph.n_nodes, les_mis.graph.n_edges) == (77, 254)
    blocks = open_blocks(None, nodes=300, degree=8.0)
    assert (blocks.graph.n_nodes, blocks.graph.n_edges) == (300, 1200)
    same = blocks.labels[blocks.graph.edges[0]] == blocks.labels[blocks.graph.edges[1]]
    assert 0.75 < float(same.float().mean()) < 0.85


def test_nodes_stand_in_a_random_order() -> None:
    blocks = open_blocks(None, nodes=400)
    distance = (blocks.graph.edges[0] - blocks.graph.edges[1]).abs().float().mean()
    assert 110 < float(distance) < 160  # two random ones of 400: 133


def test_removed_edges_are_known_to_judges_alone() -> None:
    whole, half = open_karate(None), open_karate(None, kept=0.5)
    assert half.graph.n_edges == half.removed.shape[1] == 39
    both = torch.cat([half.graph.edges, half.removed], dim=1)
    assert torch.equal(torch.unique(both, dim=1), whole.graph.edges)
    assert half.fingerprint != whole.fingerprint
    scores = marked(half, None).scores
    assert scores is not None
    assert [(scores == value).sum().item() for value in (1, 0.5, 0)] == [39, 39, 34 * 33 // 2 - 78]


def test_splits_share_no_node() -> None:
    blocks = open_blocks(None, nodes=80, per_class=5)
    private, held_out = blocks.split("private"), blocks.split("holdout")
    assert len(private) == 20
    assert sorted([*private.nodes.tolist(), *held_out.nodes.tolist()]) == list(range(80))
    with pytest.raises(DataError, match="no split 'test'"):
        blocks.split("test")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "nodes.csv").write_text("id,label,age\na,x,1\nb,x,2\nc,y,3\nd,y,4\n")
    (tmp_path / "graph.txt").write_text("# a path\na b\nb,c\nc d\n")
    return tmp_path


def test_a_users_own_graph_is_read(own: Path) -> None:
    data = open_edgelist(str(own / "graph.txt"), nodes="nodes.csv")
    assert (data.graph.n_nodes, data.graph.n_edges, data.classes) == (4, 3, ("x", "y"))
    order = data.graph.features.flatten().argsort()
    assert data.labels[order].tolist() == [0, 0, 1, 1]
    assert data.graph.degrees()[order].tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("graph.txt", "a b\na a\n", "1 self-loops"),
        ("graph.txt", "a b\na b\nb c\n", "1 repeated edges"),
        ("graph.txt", "a b\nb a\nc d\n", "1 edges in one direction only"),
        ("graph.txt", "a b 0.5\n", "line 1: a third value"),
        ("graph.txt", "a b\nb z\n", "line 2: node 'z' is not in the table"),
        ("graph.txt", "a\n", "line 1: 1 values"),
        ("graph.txt", "\n", "no edge"),
        ("nodes.csv", "id,label,age\na,x,1\nb,x\n", "line 3: 2 values for 3 columns"),
        ("nodes.csv", "id,label,age\na,x,nan\nb,x,2\n", "line 2, column age: 'nan' is no finite number"),
        ("nodes.csv", "id,label\na,x\na,x\n", "line 3: node 'a' stands there twice"),
        ("nodes.csv", "name,label\na,x\n", "must name the columns id and label"),
        ("nodes.csv", "id,label\na,x\nb,x\nc,x\nd,y\n", "class 1 has 1 node"),
    ],
)
def test_bad_files_are_refused_with_the_place(own: Path, file: str, text: str, message: str) -> None:
    (own / file).write_text(text)
    with pytest.raises(DataError, match=message):
        open_edgelist(str(own / "graph.txt"), nodes="nodes.csv")


def test_cleaning_drops_what_is_no_undirected_edge(own: Path) -> None:
    (own / "graph.txt").write_text("a b 1\nb a 1\na a 2\nc d 1\nc d 1\n")
    data = open_edgelist(str(own / "graph.txt"), nodes="nodes.csv", clean=True, weights=True)
    assert data.graph.n_edges == 2


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    for opener in (open_edgelist, open_npz, open_planetoid, open_pyg):
        with pytest.raises(DataError, match="needs a place"):
            opener(None)
        with pytest.raises(DataError, match=r"no file|No such file"):
            opener(str(tmp_path / "nothing"))
    (tmp_path / "graph.txt").write_text("a b\n")
    with pytest.raises(DataError, match="nodes are missing"):
        open_edgelist(str(tmp_path / "graph.txt"))


def arrays() -> dict[str, Any]:
    matrix = sparse.csr_matrix(([1.0, 1, 1], ([0, 1, 2], [1, 2, 3])), shape=(4, 4))
    parts = {
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "shape": numpy.array(matrix.shape),
    }
    return {**{f"adj_{name}": part for name, part in parts.items()}, "labels": numpy.array([0, 0, 1, 1])}


def test_a_numpy_archive_is_read_and_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    numpy.savez(path, **arrays(), idx_to_node=numpy.array({"a": 1}, dtype=object))
    data = open_npz(str(path))
    assert (data.graph.n_edges, data.graph.features.shape) == (3, (4, 4))
    numpy.savez(path, labels=numpy.array([0, 1]))
    with pytest.raises(DataError, match="is no graph"):
        open_npz(str(path))
    numpy.savez(path, **{**arrays(), "labels": numpy.array([0, 1])})
    with pytest.raises(DataError, match=r"rows of features|is no graph|joins node"):
        open_npz(str(path))


def test_planetoid_files_run_no_code(tmp_path: Path) -> None:
    (tmp_path / "ind.toy.x").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"it holds os\.system"):
        open_planetoid(str(tmp_path / "ind.toy"))


def test_processed_data_are_read(tmp_path: Path) -> None:
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    data = Data(
        x=torch.eye(4), y=torch.tensor([0, 0, 1, 1]), edge_index=edges, train_mask=torch.tensor([1, 0, 1, 0]).bool()
    )
    torch.save((data.to_dict(), None, Data), tmp_path / "data.pt")
    found = open_pyg(str(tmp_path / "data.pt"))
    assert (found.graph.n_edges, len(found.split("private"))) == (2, 2)
    torch.save(({"x": torch.eye(2)}, None), tmp_path / "data.pt")
    with pytest.raises(DataError, match="not x, y and edge_index"):
        open_pyg(str(tmp_path / "data.pt"))


@pytest.mark.data
@pytest.mark.skipif(not ROOT, reason="MI_DATA_ROOT is not set")
def test_cora_has_its_known_sizes() -> None:
    folder = Path(str(ROOT)) / "graph" / "cora"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    plain = open_npz(str(folder / "cora.npz"), clean=True)
    planetoid = open_planetoid(str(folder / "planetoid" / "ind.cora"), clean=True)
    for data in (plain, planetoid):
        assert (data.graph.n_nodes, data.graph.n_edges, len(data.classes)) == (2708, 5278, 7)
        assert data.graph.features.shape[1] == 1433
    assert len(planetoid.split("private")) == 140


def test_kinds_of_edges_go_with_their_edges() -> None:
    """Nodes are renumbered and edges taken out: each edge keeps its kind, and most within classes are of the first."""
    whole, half = (open_blocks(None, kinds=2, kept=kept) for kept in (1.0, 0.5))
    assert whole.input.options["kinds"] == 2
    kinds, kept = (
        {tuple(edge): kind for *edge, kind in torch.cat([data.graph.edges, data.graph.kinds[None]]).T.tolist()}
        for data in (whole, half)
    )
    assert kept.items() < kinds.items()
    inside = whole.labels[whole.graph.edges[0]] == whole.labels[whole.graph.edges[1]]
    assert float(whole.graph.kinds[inside].eq(0).float().mean()) == pytest.approx(0.8, abs=0.05)
    assert float(whole.graph.kinds[~inside].eq(0).float().mean()) == pytest.approx(0.2, abs=0.05)
    plain = open_blocks(None)
    assert plain.graph.kinds is None
    assert torch.equal(plain.graph.edges, whole.graph.edges)
