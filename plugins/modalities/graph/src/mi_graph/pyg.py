"""What is used of PyTorch Geometric, imported without its warning about torch.jit."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage
    from torch_geometric.io import read_tu_data
    from torch_geometric.nn import GATConv, GCNConv, GINConv, RGCNConv, SAGEConv, global_mean_pool

__all__ = [
    "Data", "DataEdgeAttr", "DataTensorAttr", "GATConv", "GCNConv", "GINConv", "GlobalStorage", "RGCNConv",
    "SAGEConv", "global_mean_pool", "read_tu_data",
]  # fmt: skip
