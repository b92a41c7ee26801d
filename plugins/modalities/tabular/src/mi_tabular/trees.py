"""Decision trees, and forests of them, as tensors: a bundle holds one as it holds any network.

What a leaf says is the share of each class among the training rows that reached it; the logits are the logarithms of
the mean of these over all trees. Numbers of training rows stay beside the shares, as in scikit-learn's own files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from micore.runtime import Random

SMALLEST = 1e-6
"""Share that a class has at least: logits stay finite."""

PARTS = ("feature", "threshold", "left", "right", "rows", "roots", "shares")


class TreeEnsemble(nn.Module):
    """Trees over coded rows (N, width); learns by scikit-learn, all at once (`micore.answers.LearnsAtOnce`).

    make: builds the estimator of a seed. feature, threshold, left, right (nodes,): a row whose feature is at most the
    threshold goes to the left; leaves have the feature -1. rows (nodes, classes): training rows of each class that came
    by. roots (trees,): where each tree begins. shares (nodes, classes): what leaves say.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    rows: Tensor
    roots: Tensor

    def __init__(self, n_classes: int, make: Callable[[int], Any] | None = None) -> None:
        super().__init__()
        self.n_classes = n_classes
        self._make = make
        nothing = numpy.full(1, -1)
        self._take([(nothing, numpy.zeros(1), nothing, nothing, numpy.ones((1, n_classes)))])

    @property
    def n_training_rows(self) -> float:
        """How many rows the first tree has learned from."""
        return float(self.rows[self.roots[0]].sum())

    def leaves(self, inputs: Tensor) -> Tensor:
        """Return the leaf that each of the rows (N, width) reaches in each tree, int64 (N, trees)."""
        nodes = self.roots.expand(len(inputs), -1)
        while True:
            feature = self.feature[nodes]
            if not bool((feature >= 0).any()):
                return nodes
            values = inputs.gather(1, feature.clamp(min=0))
            further = torch.where(values <= self.threshold[nodes], self.left[nodes], self.right[nodes])
            nodes = torch.where(feature >= 0, further, nodes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        return self.shares[self.leaves(inputs)].mean(dim=1).clamp(min=SMALLEST).log()

    def learn(self, inputs: Tensor, labels: Tensor, rng: Random) -> None:
        """Learn from all rows (N, width) and their classes (N,)."""
        if self._make is None:
            raise TypeError("these trees were learned elsewhere")
        estimator = self._make(rng.seed() % 2**32)
        estimator.fit(inputs.cpu().numpy(), labels.cpu().numpy())
        device = inputs.device
        self.take(estimator, range(self.n_classes))
        self.to(device)

    def take(self, estimator: Any, classes: Sequence[Any]) -> None:
        """Take the trees of a fitted estimator of scikit-learn: a decision tree's, or a forest's.

        classes: in the order of the logits; the estimator's own may be fewer, and in another order.
        """
        places = [list(classes).index(name) for name in estimator.classes_]
        members = getattr(estimator, "estimators_", [estimator])
        self._take([self._parts(member.tree_, places) for member in members])

    def _parts(self, tree: Any, places: list[int]) -> tuple[numpy.ndarray[Any, Any], ...]:
        shares = tree.value[:, 0, :]
        shares = shares / shares.sum(axis=1, keepdims=True)
        rows = numpy.zeros((tree.node_count, self.n_classes))
        rows[:, places] = shares * tree.weighted_n_node_samples[:, None]
        feature = numpy.where(tree.children_left < 0, -1, tree.feature)
        # scikit-learn compares float32 with float64; rounded down, the threshold parts float32 alike
        threshold = tree.threshold.astype(numpy.float32)
        threshold = numpy.where(threshold > tree.threshold, numpy.nextafter(threshold, -numpy.inf), threshold)
        return feature, threshold, tree.children_left, tree.children_right, rows

    def _take(self, trees: list[tuple[Any, ...]]) -> None:
        sizes = [len(tree[0]) for tree in trees]
        starts = numpy.cumsum([0, *sizes[:-1]])
        feature, threshold, left, right, rows = (numpy.concatenate(parts) for parts in zip(*trees, strict=True))
        offset = numpy.repeat(starts, sizes)
        for name, values, kind in (
            ("feature", feature, torch.int64), ("threshold", threshold, torch.float32),
            ("left", numpy.where(left < 0, 0, left + offset), torch.int64),
            ("right", numpy.where(right < 0, 0, right + offset), torch.int64),
            ("rows", rows, torch.float32), ("roots", starts, torch.int64),
        ):  # fmt: skip
            self.register_buffer(name, torch.as_tensor(numpy.asarray(values)).to(kind))
        shares = torch.as_tensor(rows / rows.sum(axis=1, keepdims=True)).float()
        self.shares = nn.Parameter(shares, requires_grad=True)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take trees of any number of nodes."""
        for name in PARTS:
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape != own.shape and stored.ndim == own.ndim:
                fresh = torch.empty(stored.shape, dtype=own.dtype, device=own.device)
                setattr(self, name, nn.Parameter(fresh) if name == "shares" else fresh)
        super()._load_from_state_dict(state_dict, prefix, *args)
