"""Graphs that a person can look at: drawings, alone or against the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import networkx
import torch
from torch import Tensor

from mi_graph.batch import WHOLE, Graphs
from mi_graph.graphs import Graph
from micore.files import atomic_path, safe_name

DRAWN = 80
"""Nodes of a drawing: of a larger graph those with the most edges."""

SIZE, MARGIN = 320, 12
RIGHT, MISSED, FALSE = "right", "missed", "false"
COLOURS = {RIGHT: "#1a7f37", MISSED: "#8c8c8c", FALSE: "#cf222e"}
DASHED = (MISSED,)

Places = Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Drawing:
    """What is drawn of a graph: places of nodes, and edges by what they are."""

    places: Places
    edges: Mapping[str, Iterable[tuple[int, int]]]
    marked: int = WHOLE

    def svg(self) -> str:
        """Return the drawing as one SVG element."""
        lines = [self._line(pair, kind) for kind, pairs in self.edges.items() for pair in pairs]
        dots = [self._dot(node) for node in self.places]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}" '
            f'role="img" aria-label="{self.words()}">'
            f"{''.join(lines)}{''.join(dots)}</svg>"
        )

    def words(self) -> str:
        """Say what is drawn, for those who do not see it."""
        counts = {kind: len(list(pairs)) for kind, pairs in self.edges.items()}
        found = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        return f"graph of {len(self.places)} nodes; edges: {found}"

    def _line(self, pair: tuple[int, int], kind: str) -> str:
        (x1, y1), (x2, y2) = (self.places[node] for node in pair)
        dash = ' stroke-dasharray="4 3"' if kind in DASHED else ""
        return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{COLOURS[kind]}"{dash}/>'

    def _dot(self, node: int) -> str:
        x, y = self.places[node]
        radius = 6 if node == self.marked else 3
        return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="currentColor"/>'


def drawing(graph: Graph, node: int = WHOLE, truth: Graph | None = None) -> Drawing:
    """Return a drawing of a graph, with one node marked; against a truth its edges are right, missed or false."""
    shown = _shown(truth or graph, node)
    places = _places(truth or graph, shown)
    found = _within(graph.edges, shown)
    real = found if truth is None else _within(truth.edges, shown)
    kinds = {MISSED: real - found, FALSE: found - real, RIGHT: found & real}
    return Drawing(places, {kind: sorted(pairs) for kind, pairs in kinds.items()}, node)


def _shown(graph: Graph, node: int) -> list[int]:
    most = graph.degrees().argsort(descending=True, stable=True)[:DRAWN].tolist()
    return sorted({*most, *([] if node == WHOLE else [node])})


def _within(edges: Tensor, nodes: list[int]) -> set[tuple[int, int]]:
    known = torch.tensor(nodes)
    inside = torch.isin(edges, known).all(dim=0)
    return {(one, two) for one, two in edges[:, inside].T.tolist()}


def _places(graph: Graph, nodes: list[int]) -> Places:
    """Lay nodes out by springs along their edges, the same way every time."""
    shape = networkx.Graph()
    shape.add_nodes_from(nodes)
    shape.add_edges_from(sorted(_within(graph.edges, nodes)))
    spots = networkx.spring_layout(shape, seed=0)
    side = SIZE / 2 - MARGIN
    return {
        node: (round(float(x) * side + SIZE / 2, 1), round(float(y) * side + SIZE / 2, 1))
        for node, (x, y) in spots.items()
    }


def export_graphs(samples: Mapping[str, Graphs], directory: Path) -> list[Path]:
    """Write a drawing of the first sample of each key.

    Raises: StorageError.
    """
    return [_write(part, directory / f"{safe_name(key)}.svg") for key, part in samples.items() if len(part)]


def _write(samples: Graphs, path: Path) -> Path:
    graph, node = samples[:1].each()[0]
    with atomic_path(path) as temporary:
        temporary.write_text(drawing(graph, node).svg(), encoding="utf-8")
    return path


def fragment(samples: Graphs, limit: int, truth: Graph | None = None) -> str:
    """Return an HTML fragment with drawings of up to ``limit`` samples; see `drawing`."""
    items = (drawing(graph, node, truth).svg() for graph, node in samples[: max(limit, 0)].each())
    legend = "".join(f'<span style="color:{colour}"> {kind} </span>' for kind, colour in COLOURS.items())
    return f'<div class="mi-graphs">{"".join(items)}{"" if truth is None else legend}</div>'


def counted(samples: Graphs, limit: int) -> str:
    """Return an HTML list of up to ``limit`` samples that says how large they are, to one digit."""
    sizes = [(graph.n_nodes, graph.n_edges) for graph, _ in samples[: max(limit, 0)].each()]
    items = (f"<li>about {_rounded(nodes):,} nodes and {_rounded(edges):,} edges</li>" for nodes, edges in sizes)
    return f'<ol class="mi-graphs">{"".join(items)}</ol>'


def _rounded(count: int) -> int:
    return int(float(f"{count:.0e}"))
