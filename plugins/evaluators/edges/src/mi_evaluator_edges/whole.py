"""Recovered whole graphs against private ones, whatever the order of their nodes.

Zhang et al.: "Inference Attacks Against Graph Neural Networks", USENIX Security 2022: histograms and the
Weisfeiler-Lehman kernel.

- ``wl-kernel``: the normalised subtree kernel of 10 rounds, which begins with degrees: 1 means that no round tells both
  graphs apart. The headline.
- ``gain``: the kernel above the best floor, which is the one with the highest mean; both of the same cases.
- ``degree-cosine``, ``clustering-cosine``: cosines of histograms of degrees, and of clustering coefficients (10 bins).
  High for any graph of the kind: graphs without triangles all have 1.
- ``edge-count-error``: how far the number of edges is off, as a share of the true one (of 1 edge, where there is none).
- ``indistinguishable``: the share of graphs whose kernel is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from mi_evaluator_edges.clustering import clustering
from mi_graph.colours import colour_counts, kernel
from mi_graph.graphs import Graph
from micore.contracts import Measurement, Reference, Subject
from micore.errors import DataError
from micore.kit.measuring import Figure, Rows, measure

IDENTITY = "edges@whole"
BINS = 10
EQUAL = 1 - 1e-9
"""Kernels above differ from 1 by rounding."""

FLOORS = ("erdos-renyi", "random-public", "public-of-size", "mean-embedding")
"""Of the modality, and of attacks that learn from public graphs: what they give without the private embedding."""

DOWN = ("edge-count-error",)
UNITS: Mapping[str, str] = {"gain": "kernel", "edge-count-error": "edges"}


def is_whole(reference: Reference) -> bool:
    """Tell whether the truths are whole graphs: without scores of pairs, as these need an order of nodes."""
    return any(truth.sample.graphs[0].scores is None for truth in reference.truth.values())


def measured(subjects: Sequence[Subject], reference: Reference) -> list[Measurement]:
    """Measure every subject alike, each case by its first sample; values are means over cases.

    Raises: DataError for a case without a truth.
    """
    values = {subject.name: _compared(subject, reference) for subject in subjects}
    floors = [name for name in FLOORS if name in values]
    best = max(floors, key=lambda name: float(values[name]["wl-kernel"].mean()), default=None)
    found = []
    for subject in subjects:
        own = values[subject.name]
        if best is not None:
            own["gain"] = own["wl-kernel"] - values[best]["wl-kernel"]
        rows = Rows.of(_first(subject), labelled=False)
        notes = {"gain": (f"above {best}, the best floor",)} if best is not None else {}
        found += [
            measure(
                Figure(
                    figure, value, UNITS.get(figure, "share"), "down" if figure in DOWN else "up", notes.get(figure, ())
                ),
                rows, IDENTITY,
            )
            for figure, value in own.items()
        ]  # fmt: skip
    return found


def _first(subject: Subject) -> Subject:
    """Leave each case its first sample."""
    return replace(subject, reconstructions=[
        replace(item, samples=item.samples[:1], scores=item.scores[:1]) for item in subject.reconstructions
    ])  # fmt: skip


def _compared(subject: Subject, reference: Reference) -> dict[str, Tensor]:
    """Return each figure for all cases, float64 (cases,)."""
    rows = []
    for item in subject.reconstructions:
        if item.case.id not in reference.truth:
            raise DataError(f"edges: nobody knows the truth of {item.case.id}")
        rows.append(figures(item.samples[:1].graphs[0], reference.truth[item.case.id].sample.graphs[0]))
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}


def figures(found: Graph, private: Graph) -> dict[str, float]:
    """Compare two graphs."""
    alike = kernel(colour_counts(found), colour_counts(private))
    return {
        "wl-kernel": alike,
        "degree-cosine": _cosine(found.degrees(), private.degrees()),
        "clustering-cosine": _cosine(*(_bins(clustering(graph)) for graph in (found, private))),
        "edge-count-error": abs(found.n_edges - private.n_edges) / max(1, private.n_edges),
        "indistinguishable": float(alike > EQUAL),
    }


def _cosine(one: Tensor, two: Tensor) -> float:
    """Return the cosine of how often each whole number is among values (n,) and (m,)."""
    length = int(torch.cat([one, two]).max()) + 1
    counts = [values.bincount(minlength=length).double() for values in (one, two)]
    return float(functional.cosine_similarity(*counts, dim=0))


def _bins(shares: Tensor) -> Tensor:
    return (shares * BINS + 1e-9).long().clamp(max=BINS - 1)  # 0.3 is the lower end of a bin, not below it
