"""Figures of confusion matrices, for many draws of cases at once: float64 (draws, true, found).

The last column is of what is none of the values; it is never right.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

Values = NDArray[numpy.float64]
Integers = NDArray[numpy.int64]


def tables(true: Integers, found: Integers, times: Integers, n_values: int) -> Values:
    """Count cases by their true and found values (n,), -1 for none of them; each case so often, times (draws, n)."""
    cells = true * (n_values + 1) + numpy.where(found < 0, n_values, found)
    is_in = (cells[:, None] == numpy.arange(n_values * (n_values + 1))).astype(numpy.float64)
    return (times @ is_in).reshape(len(times), n_values, n_values + 1)


def accuracy(matrices: Values) -> Values:
    """Return the share of cases whose value was found."""
    found: Values = _right(matrices).sum(axis=1) / matrices.sum(axis=(1, 2))
    return found


def balanced_accuracy(matrices: Values) -> Values:
    """Return the mean over the values that occur of the share of their cases that was found."""
    there = matrices.sum(axis=2)
    return _mean(_ratio(_right(matrices), there), there > 0)


def f1(matrices: Values) -> Values:
    """Return the mean over values of the harmonic mean of precision and recall; of those that occur."""
    there, given = matrices.sum(axis=2), matrices.sum(axis=1)[:, :-1]
    return _mean(_ratio(2 * _right(matrices), there + given), there > 0)


def mcc(matrices: Values) -> Values:
    """Return Matthews' correlation for several values (Gorodkin, 2004); 0 where one side is always the same."""
    there, given, n = matrices.sum(axis=2), matrices.sum(axis=1), matrices.sum(axis=(1, 2))
    together = _right(matrices).sum(axis=1) * n - (there * given[:, :-1]).sum(axis=1)
    spreads = (n**2 - (there**2).sum(axis=1)) * (n**2 - (given**2).sum(axis=1))
    return _ratio(together, numpy.sqrt(spreads))


def _right(matrices: Values) -> Values:
    found: Values = numpy.diagonal(matrices[:, :, :-1], axis1=1, axis2=2)
    return found


def _ratio(above: Values, below: Values) -> Values:
    found: Values = numpy.divide(above, below, out=numpy.zeros_like(above), where=below > 0)
    return found


def _mean(values: Values, counted: NDArray[numpy.bool_]) -> Values:
    return _ratio((values * counted).sum(axis=1), counted.sum(axis=1).astype(numpy.float64))
