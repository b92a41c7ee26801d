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


class ManyGraphsOptions(DatasetOptions):
    """How many graphs become a setting: three parts, each with graphs of every class."""

    private: float = Field(0.4, gt=0, lt=1, description="Share of the graphs that the target learns from")
    public: float = Field(0.4, gt=0, lt=1, description="Share that the adversary has; the others are held out")
    seed: int = Field(0, ge=0, description="Of the three parts, of the order of graphs and of their nodes")
