"""Options that all data sets of graphs have."""

from __future__ import annotations

from pydantic import Field

from micore.kit.dataset_options import DatasetOptions


class GraphOptions(DatasetOptions):
    """How a graph becomes a setting."""

    per_class: int = Field(
        20, ge=1, description="Nodes of each class that the target learns from, at most half of them"
    )
    kept: float = Field(
        1.0, gt=0, le=1, description="Share of the edges that the private graph keeps; judges know the others"
    )
    seed: int = Field(0, ge=0, description="Of the order of nodes, of training nodes and of edges that are kept")
