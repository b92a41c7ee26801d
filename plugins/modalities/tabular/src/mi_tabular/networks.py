"""Targets: a perceptron, and what scikit-learn learns: a logistic regression, a decision tree, a random forest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from mi_tabular.trees import TreeEnsemble
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.runtime import Random

Criterion = Literal["gini", "entropy", "log_loss"]


def tabular_mlp(
    n_classes: int, input_spec: InputSpec, *, hidden: Sequence[int] = (64, 32), dropout: float = 0.0
) -> nn.Sequential:
    """Build a perceptron; hidden: units of each layer.

    Raises: ModelError when sizes do not fit.
    """
    widths = [_width(n_classes, input_spec), *hidden]
    if any(width < 1 for width in widths) or not 0 <= dropout < 1:
        raise ModelError(f"no perceptron has hidden={list(hidden)} and dropout={dropout}")
    layers: list[nn.Module] = []
    for size, following in pairwise(widths):
        layers += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], n_classes))


def decision_tree(
    n_classes: int, input_spec: InputSpec, *, max_depth: int | None = None, min_samples_leaf: int = 1,
    criterion: Criterion = "gini",
) -> TreeEnsemble:  # fmt: skip
    """Build a decision tree (Breiman et al., 1984), of scikit-learn; by default it grows until leaves are pure.

    Raises: ModelError when sizes do not fit.
    """
    _width(n_classes, input_spec)
    _check_leaves(max_depth, min_samples_leaf)
    options = {"max_depth": max_depth, "min_samples_leaf": min_samples_leaf, "criterion": criterion}
    return TreeEnsemble(n_classes, partial(_estimator, DecisionTreeClassifier, options))


def random_forest(
    n_classes: int, input_spec: InputSpec, *, n_trees: int = 50, max_depth: int | None = None,
    min_samples_leaf: int = 1,
) -> TreeEnsemble:  # fmt: skip
    """Build a random forest (Breiman, 2001), of scikit-learn.

    Raises: ModelError when sizes do not fit.
    """
    _width(n_classes, input_spec)
    _check_leaves(max_depth, min_samples_leaf)
    if n_trees < 1:
        raise ModelError(f"no forest has n_trees={n_trees}")
    options = {"n_estimators": n_trees, "max_depth": max_depth, "min_samples_leaf": min_samples_leaf}
    return TreeEnsemble(n_classes, partial(_estimator, RandomForestClassifier, options))


def logistic_regression(n_classes: int, input_spec: InputSpec, *, strength: float = 1.0) -> LogisticModel:
    """Build a logistic regression of scikit-learn; strength: the weight of the data beside L2 (its ``C``).

    Raises: ModelError when sizes do not fit.
    """
    if strength <= 0:
        raise ModelError(f"strength must be above 0, not {strength}")
    return LogisticModel(n_classes, _width(n_classes, input_spec), strength)


class LogisticModel(nn.Module):
    """One linear layer that scikit-learn fits, all at once (`micore.answers.LearnsAtOnce`)."""

    def __init__(self, n_classes: int, width: int, strength: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_classes)
        self._strength = strength

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (N, classes) of rows (N, width)."""
        logits: Tensor = self.linear(inputs)
        return logits

    @torch.no_grad()
    def learn(self, inputs: Tensor, labels: Tensor, rng: Random) -> None:
        """Learn from all rows (N, width) and their classes (N,); lbfgs needs no random numbers."""
        estimator = LogisticRegression(C=self._strength, max_iter=5000)
        estimator.fit(inputs.cpu().numpy(), labels.cpu().numpy())
        weight, bias = estimator.coef_, estimator.intercept_
        if len(weight) == 1:  # of two classes scikit-learn keeps the second one's logit alone
            weight, bias = (numpy.concatenate([numpy.zeros_like(part), part]) for part in (weight, bias))
        self.linear.weight.copy_(torch.as_tensor(weight))
        self.linear.bias.copy_(torch.as_tensor(bias))


def _estimator(kind: Any, options: dict[str, Any], seed: int) -> Any:
    return kind(**options, random_state=seed)


def _width(n_classes: int, spec: InputSpec) -> int:
    if n_classes < 1 or len(spec.shape) != 1 or spec.shape[0] < 1:
        raise ModelError(f"rows of shape {spec.shape} and {n_classes} classes fit no model of tables")
    return spec.shape[0]


def _check_leaves(max_depth: int | None, min_samples_leaf: int) -> None:
    if min_samples_leaf < 1 or (max_depth is not None and max_depth < 1):
        raise ModelError(f"no tree has max_depth={max_depth} and min_samples_leaf={min_samples_leaf}")
