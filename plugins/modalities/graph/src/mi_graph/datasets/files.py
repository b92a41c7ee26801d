"""Graphs in files: sparse matrices, Planetoid's files, PyTorch Geometric's data, and a user's own lists."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from mi_graph.datasets.cleaning import CLEAN, CLEAN_HINT, unclean
from mi_graph.datasets.dataset import NodeDataset, node_dataset
from mi_graph.datasets.options import GraphOptions
from mi_graph.datasets.own import read_own
from mi_graph.graphs import ordered
from micore.errors import DataError
from micore.kit.dataset_options import PathText, find_place, read_options

NPZ_HINT = "it must hold adj_data, adj_indices, adj_indptr, adj_shape and labels, as in gnn-meta-attack"
PICKLED = {
    ("scipy.sparse.csr", "csr_matrix"): sparse.csr_matrix, ("scipy.sparse._csr", "csr_matrix"): sparse.csr_matrix,
    ("numpy.core.multiarray", "_reconstruct"): numpy._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): numpy.ndarray, ("numpy", "dtype"): numpy.dtype,
}  # fmt: skip
"""What Planetoid's files may be made of besides plain values: nothing else is imported, so that no code runs."""


class FileOptions(GraphOptions):
    """Options of graphs in files."""

    clean: bool = Field(False, description=CLEAN)


class OwnOptions(FileOptions):
    """Options of ``edgelist``."""

    nodes: PathText = Field("", description="CSV of the nodes: id, label, and numbers as features; beside the list")
    weights: bool = Field(False, description="Leave a third column of the list, weights, aside")


def open_npz(location: str | None, **options: Any) -> NodeDataset:
    """Open ``npz:PATH``: the adjacency, and features if there are any, as sparse matrices in one numpy archive.

    Without features nodes have their number, one-hot. Raises: DataError.
    """
    settings, path = _given("npz", FileOptions, location, options)
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files if name in _NPZ_PARTS}
        adjacency, labels = _matrix(held, "adj").tocoo(), held["labels"]
        features = _matrix(held, "attr").toarray() if "attr_data" in held else numpy.eye(len(labels))
    except (KeyError, OSError, ValueError) as error:
        raise DataError(f"npz: {path} is no graph: {error}", hint=NPZ_HINT) from error
    edges = torch.tensor(numpy.stack([adjacency.row, adjacency.col]), dtype=torch.int64)
    return _dataset("npz", path, settings, edges, torch.tensor(features), torch.tensor(labels, dtype=torch.int64))


_NPZ_PARTS = {
    "labels", *(f"{of}_{part}" for of in ("adj", "attr") for part in ("data", "indices", "indptr", "shape"))
}  # fmt: skip


def _matrix(held: Mapping[str, Any], name: str) -> sparse.csr_matrix:
    parts = [held[f"{name}_{part}"] for part in ("data", "indices", "indptr")]
    return sparse.csr_matrix(tuple(parts), shape=tuple(held[f"{name}_shape"]))


def open_planetoid(location: str | None, **options: Any) -> NodeDataset:
    """Open ``planetoid:PATH/ind.NAME`` (Yang et al., 2016), with its training nodes; ``per_class`` is not used.

    Nodes that the files leave out have no features and are of class 0. Raises: DataError.
    """
    settings, path = _given("planetoid", FileOptions, location, options, must_exist=False)
    parts = {part: _unpickled(Path(f"{path}.{part}")) for part in ("x", "tx", "allx", "y", "ty", "ally", "graph")}
    order = torch.tensor([int(line) for line in _text(Path(f"{path}.test.index")).split()])
    n_known, n = parts["allx"].shape[0], int(order.max()) + 1
    features, labels = torch.zeros(n, parts["allx"].shape[1]), torch.zeros(n, dtype=torch.int64)
    features[:n_known] = torch.tensor(parts["allx"].toarray(), dtype=torch.float32)
    features[order] = torch.tensor(parts["tx"].toarray(), dtype=torch.float32)
    labels[:n_known] = torch.tensor(parts["ally"]).argmax(dim=1)
    labels[order] = torch.tensor(parts["ty"]).argmax(dim=1)
    pairs = [(node, other) for node, others in parts["graph"].items() for other in others]
    edges = ordered(torch.tensor(pairs, dtype=torch.int64).T)  # each stands there twice, some thrice
    return _dataset("planetoid", path, settings, edges, features, labels, torch.arange(parts["y"].shape[0]))


class _Reader(pickle.Unpickler):
    """Reads numbers and matrices, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PICKLED:
            return PICKLED[module, name]
        if (module, name) == ("collections", "defaultdict"):
            return _plain_dict
        if (module, name) == ("__builtin__", "list"):
            return list
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no part of such files")


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _unpickled(path: Path) -> Any:
    try:
        with _opened(path) as file:
            return _Reader(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"planetoid: {path} cannot be read: {error}", hint="planetoid:DIR/ind.cora") from error


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"planetoid: {path}: {error.strerror}", hint="planetoid:DIR/ind.cora") from error


def _text(path: Path) -> str:
    with _opened(path) as file:
        return file.read().decode("ascii", "replace")


def open_pyg(location: str | None, **options: Any) -> NodeDataset:
    """Open ``pyg:PATH``: a ``data.pt`` that an InMemoryDataset of PyTorch Geometric has processed, of one graph.

    Raises: DataError.
    """
    settings, path = _given("pyg", FileOptions, location, options)
    held = _processed(path)
    if not {"x", "y", "edge_index"} <= held.keys():
        raise DataError(f"pyg: {path} has {', '.join(held)}, not x, y and edge_index")
    train = held.get("train_mask")
    chosen = None if train is None else (train if train.ndim == 1 else train[:, 0]).nonzero().flatten()
    return _dataset("pyg", path, settings, ordered(held["edge_index"]), held["x"], held["y"].flatten().long(), chosen)


def _processed(path: Path) -> dict[str, Tensor]:
    from mi_graph.pyg import Data, DataEdgeAttr, DataTensorAttr, GlobalStorage

    try:
        with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            data = torch.load(path, weights_only=True)[0]
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"pyg: {path} cannot be read: {error}", hint="pyg:ROOT/processed/data.pt") from error
    found = data if isinstance(data, dict) else data.to_dict()
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def open_edgelist(location: str | None, **options: Any) -> NodeDataset:
    """Open ``edgelist:PATH``: two ids in a line, with ``-D nodes=nodes.csv``, a table of ids, labels and features.

    Raises: DataError that names the line at fault.
    """
    settings, path = _given("edgelist", OwnOptions, location, options)
    if not settings.nodes:
        raise DataError("edgelist: the nodes are missing", hint="-D nodes=nodes.csv, with the columns id and label")
    own = read_own(path, path.parent / settings.nodes, has_weights=settings.weights)
    return _dataset("edgelist", path, settings, own.edges, own.features, own.labels, classes=own.classes)


# for all ------------------------------------------------------------------------------------------------------


def _given(
    name: str, model: type[Any], location: str | None, options: Mapping[str, Any], *, must_exist: bool = True
) -> tuple[Any, Path]:
    if location is None:
        raise DataError(f"{name} needs a place", hint=f"{name}:PATH")
    settings = read_options(model, name, options)
    path = find_place(settings, location)
    if must_exist and not path.is_file():
        raise DataError(f"{name}: there is no file {path}", hint=f"{name}:PATH, from here or from --data-root")
    return settings, path


def _dataset(
    name: str, path: Path, settings: FileOptions, edges: Tensor, features: Tensor, labels: Tensor,
    train: Tensor | None = None, classes: tuple[str, ...] = (),
) -> NodeDataset:  # fmt: skip
    """Check what a file held and make a data set of it."""
    where, n = f"{name}: {path.name}", len(features)
    if len(labels) != n:
        raise DataError(f"{where}: {n} rows of features, {len(labels)} labels")
    if not bool(torch.isfinite(features).all()):
        row = int((~torch.isfinite(features)).any(dim=1).nonzero()[0])
        raise DataError(f"{where}: features of node {row} are no finite numbers", hint="fill or drop them")
    if edges.numel() and (int(edges.max()) >= n or int(edges.min()) < 0):
        raise DataError(f"{where}: an edge joins node {int(edges.max())}, there are {n}")
    found, dropped = ordered(edges), unclean(edges)
    if dropped and not settings.clean:
        raise DataError(f"{where}: {dropped}", hint=CLEAN_HINT)
    names = classes or tuple(str(label) for label in range(int(labels.max()) + 1))
    return node_dataset(
        f"{name}:{path.name}", features, found, labels, names, train=train, per_class=settings.per_class,
        kept=settings.kept, seed=settings.seed, options=settings.model_dump(mode="json"),
    )  # fmt: skip
