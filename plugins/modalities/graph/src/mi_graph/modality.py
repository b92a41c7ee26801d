"""The modality ``graph``: samples are graphs, or nodes in graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mi_graph import baselines
from mi_graph.adapter import DeployedAdapter, DeployedGraphs, GraphAdapter
from mi_graph.augment import augment
from mi_graph.batch import Graphs, joined, pack, unpack
from mi_graph.cases import graph_data, structure_cases, truths
from mi_graph.datasets.many import GraphsDataset
from mi_graph.overlap import measure_overlap
from mi_graph.previews import counted, export_graphs, fragment
from micore.contracts import Case, Dataset, Reconstruction, Truth
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.runtime import Random

if TYPE_CHECKING:
    from micore.testing.setting import ToySetting


class GraphModality:
    """How graphs fit a model, are stored and are shown (`micore.contracts.Modality`)."""

    def adapter(self, spec: InputSpec) -> GraphAdapter:
        """Return the conversion from samples of graphs to a network's input.

        Raises: ModelError when the spec is not that of a graph network.
        """
        return GraphAdapter(spec)

    def cases(
        self,
        goal: str,
        dataset: Dataset | None,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return what a run of goal ``structure`` attacks: the private graph, or each of many, with what is known.

        evidence: ``features`` of all nodes, with ``labels`` their true classes as well, with ``edges`` half of the
        edges, with ``labels+edges`` both; of many graphs their ``size``.

        Raises: UsageError for another goal, and when choice or evidence do not fit.
        """
        if goal != "structure":
            raise UsageError(f"goal {goal!r} is not there for graphs", hint="structure")
        return structure_cases(dataset, choice, evidence)

    def deployed(self, adapter: Callable[[Graphs], Any], dataset: Dataset) -> DeployedAdapter | DeployedGraphs:
        """Return the conversion that the target's interface makes: it knows the private graph, or all of them.

        Raises: UsageError for a data set without one.
        """
        if not isinstance(adapter, GraphAdapter):
            raise TypeError(f"{type(adapter).__name__} converts no graphs")
        if isinstance(dataset, GraphsDataset):
            return DeployedGraphs(adapter, dataset.split("private").graphs)
        private = graph_data(dataset).graph
        return DeployedAdapter(adapter, private)

    def truths(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
        """Return the private graph behind each case, by case id."""
        return truths(cases, dataset)

    def floors(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
        """Return what the evidence gives without the target; see `mi_graph.baselines.floors`."""
        return baselines.floors(cases, dataset)

    def augment(self, samples: Graphs, strength: str, rng: Random) -> Graphs:
        """Leave edges and features out at random; ``strength``: none, light, medium or strong.

        Raises: UsageError when there is no such strength.
        """
        return augment(samples, strength, rng)

    def pack(self, samples: Graphs) -> dict[str, Tensor]:
        """Return samples as tensors to store."""
        return pack(samples)

    def unpack(self, tensors: Mapping[str, Tensor]) -> Graphs:
        """Return stored samples."""
        return unpack(tensors)

    def join(self, parts: Sequence[Graphs]) -> Graphs:
        """Return several groups of samples as one."""
        return joined(parts)

    def overlap(self, dataset: Dataset) -> Mapping[str, Any]:
        """Count public nodes or graphs that look like private ones; see `measure_overlap`."""
        return measure_overlap(dataset)

    def export(self, samples: Mapping[str, Graphs], directory: Path) -> list[Path]:
        """Write a drawing of the first sample of each key; return the paths.

        Raises: StorageError.
        """
        return export_graphs(samples, directory)

    def show(self, samples: Graphs, limit: int) -> str:
        """Return a self-contained HTML fragment with drawings of up to ``limit`` samples."""
        return fragment(samples, limit)

    def show_blurred(self, samples: Graphs, limit: int) -> str:
        """Return about how many nodes and edges up to ``limit`` samples have, and no edge."""
        return counted(samples, limit)

    def show_against(self, truth: Graphs, samples: Graphs, limit: int) -> str:
        """Return drawings of up to ``limit`` samples with right, missed and false edges.

        Of graphs that are right in any order of their nodes no edge is right or false: they are drawn alone.
        """
        graph = truth.graphs[0]
        return fragment(samples, limit, None if graph.scores is None else graph)

    def toy(self) -> list[ToySetting]:
        """Return the planted problem that conformance checks attack and defend."""
        from mi_graph.toy import toys

        return toys()
