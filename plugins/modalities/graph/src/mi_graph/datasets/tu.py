"""Data sets of the TU collection: many graphs in one list of edges.

Morris et al.: "TUDataset: A collection of benchmark datasets for learning with graphs", 2020 (arXiv:2007.08663). Files
are NAME_A.txt (edges, nodes counted from 1 over all graphs), NAME_graph_indicator.txt (the graph of each node),
NAME_graph_labels.txt, and maybe NAME_node_labels.txt and NAME_node_attributes.txt.

PyTorch Geometric's reader drops self-loops and repeated edges in silence and names no line; so the files are read here.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mi_graph.datasets.cleaning import CLEAN, CLEAN_HINT, unclean
from mi_graph.datasets.many import GraphsDataset, SideBySide, graphs_dataset
from mi_graph.datasets.options import ManyGraphsOptions
from micore.errors import DataError
from micore.kit.dataset_options import find_place, read_options

HINT = "tu:PATH, the folder or zip that holds NAME_A.txt, NAME_graph_indicator.txt and NAME_graph_labels.txt"
EDGES, INDICATOR, LABELS = "A", "graph_indicator", "graph_labels"
NODE_LABELS, ATTRIBUTES = "node_labels", "node_attributes"


class TuOptions(ManyGraphsOptions):
    """Options of ``tu``."""

    clean: bool = Field(False, description=CLEAN)


def open_tu(location: str | None, **options: Any) -> GraphsDataset:
    """Open ``tu:PATH``, a TU data set's folder or zip.

    Features of a node are its attributes, each with mean 0 and deviation 1 over all nodes, and its labels, one-hot.
    Without both they are the constant 1: one-hot degrees, as are often used then, would hand the adversary structure.

    Raises: DataError that names file and line.
    """
    settings = read_options(TuOptions, "tu", options)
    if location is None:
        raise DataError("tu needs a place", hint=HINT)
    path = find_place(settings, location)
    name, files = _files(path)
    held = _read(path, name, files)
    problem = unclean(held.edges)
    if problem and not settings.clean:
        raise DataError(f"tu: {name}_{EDGES}.txt: {problem}", hint=CLEAN_HINT)
    return graphs_dataset(f"tu:{name}", held, settings)


@dataclass(frozen=True)
class _File:
    """One of the files: its name as errors say it, and its lines."""

    name: str
    lines: tuple[str, ...]

    def numbers(self, read: Callable[[str], float], width: int | None = None) -> list[list[float]]:
        """Return the numbers of each line; width: how many there must be, None: as many as in the first.

        Raises: DataError that names the line.
        """
        rows: list[list[float]] = []
        for number, line in enumerate(self.lines, start=1):
            row = [self._number(part.strip(), read, number) for part in line.split(",")]
            wanted = width or len(rows[0] if rows else row)
            if len(row) != wanted:
                raise DataError(f"{self.name}, line {number}: {len(row)} values, not {wanted}")
            rows.append(row)
        if not rows:
            raise DataError(f"{self.name} is empty")
        return rows

    def _number(self, text: str, read: Callable[[str], float], line: int) -> float:
        try:
            value = read(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            kind = "whole" if read is int else "finite"
            raise DataError(f"{self.name}, line {line}: {text!r} is no {kind} number", hint="mend or drop it")
        return value

    def integers(self, width: int | None = None) -> Tensor:
        """Return whole numbers, int64 (lines, width)."""
        return torch.tensor(self.numbers(int, width), dtype=torch.int64)

    def reals(self) -> Tensor:
        """Return finite numbers, float64 (lines, width)."""
        return torch.tensor(self.numbers(float), dtype=torch.float64)

    def check_length(self, wanted: int, what: str) -> None:
        """Raise DataError unless there are so many lines."""
        if len(self.lines) != wanted:
            raise DataError(f"{self.name}: {len(self.lines)} lines for {wanted} {what}")


# files --------------------------------------------------------------------------------------------------------


def _files(path: Path) -> tuple[str, dict[str, str]]:
    """Return the data set's name and the text of each of its files that is used, by part."""
    try:
        texts = _unzipped(path) if path.is_file() else {file.name: file for file in sorted(path.glob("*.txt"))}
        names = [name.removesuffix("_A.txt") for name in texts if name.endswith("_A.txt")]
        if len(names) != 1:
            raise DataError(f"tu: {path} holds {len(names) or 'no'} file{'s' * (len(names) > 1)} NAME_A.txt", hint=HINT)
        parts = (EDGES, INDICATOR, LABELS, NODE_LABELS, ATTRIBUTES)
        wanted = {part: texts[file] for part in parts if (file := f"{names[0]}_{part}.txt") in texts}
        return names[0], {
            part: text.read_text("utf-8-sig") if isinstance(text, Path) else text.decode("utf-8-sig")
            for part, text in wanted.items()
        }
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise DataError(f"tu: {path} cannot be read: {error}", hint=HINT) from error


def _unzipped(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return {Path(name).name: archive.read(name) for name in archive.namelist() if name.endswith(".txt")}


def _read(path: Path, name: str, texts: Mapping[str, str]) -> SideBySide:
    """Make graphs of the files and check that these fit each other."""
    files = {part: _File(f"{name}_{part}.txt", tuple(text.rstrip().splitlines())) for part, text in texts.items()}
    for part in (INDICATOR, LABELS):
        if part not in files:
            raise DataError(f"tu: {path} holds no {name}_{part}.txt", hint=HINT)
    graph_of, labels = files[INDICATOR].integers(1).flatten(), files[LABELS].integers(1).flatten()
    _check_members(files[INDICATOR], graph_of, len(labels))
    kinds, places = labels.unique(return_inverse=True)
    return SideBySide(
        features=_features(files, len(graph_of)), edges=_edges(files[EDGES], graph_of), graph_of=graph_of - 1,
        labels=places, classes=tuple(str(kind) for kind in kinds.tolist()),
    )  # fmt: skip


def _check_members(file: _File, graph_of: Tensor, n_graphs: int) -> None:
    outside = ((graph_of < 1) | (graph_of > n_graphs)).nonzero().flatten()
    if len(outside):
        line = int(outside[0])
        raise DataError(f"{file.name}, line {line + 1}: graph {int(graph_of[line])}, there are labels of {n_graphs}")
    empty = (graph_of.bincount(minlength=n_graphs + 1)[1:] == 0).nonzero().flatten()
    if len(empty):
        raise DataError(f"{file.name}: graph {int(empty[0]) + 1} has no node")


def _edges(file: _File, graph_of: Tensor) -> Tensor:
    """Return edges (2, m), nodes counted from 0."""
    edges, n = file.integers(2), len(graph_of)
    outside = ((edges < 1) | (edges > n)).any(dim=1).nonzero().flatten()
    if len(outside):
        line = int(outside[0])
        raise DataError(f"{file.name}, line {line + 1}: edge {edges[line].tolist()}, there are nodes 1 to {n}")
    one, two = graph_of[edges - 1].T
    across = (one != two).nonzero().flatten()
    if len(across):
        line = int(across[0])
        raise DataError(f"{file.name}, line {line + 1}: an edge from graph {int(one[line])} to graph {int(two[line])}")
    return edges.T - 1


def _features(files: Mapping[str, _File], n: int) -> Tensor:
    """Return the features of nodes, float32 (n, F)."""
    parts = []
    if ATTRIBUTES in files:
        files[ATTRIBUTES].check_length(n, "nodes")
        values = files[ATTRIBUTES].reals()
        parts.append((values - values.mean(dim=0)) / values.std(dim=0, correction=0).clamp(min=1e-9))
    if NODE_LABELS in files:
        files[NODE_LABELS].check_length(n, "nodes")
        for column in files[NODE_LABELS].integers().T:
            kinds, places = column.unique(return_inverse=True)
            parts.append(functional.one_hot(places, len(kinds)))
    return torch.cat([part.float() for part in parts] or [torch.ones(n, 1)], dim=1)
