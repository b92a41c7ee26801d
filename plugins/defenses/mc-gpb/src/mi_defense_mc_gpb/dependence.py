"""How much two sets of rows tell of each other: the four measures of the authors' code.

Rows are (m, d) and (m, e), the i-th of one beside the i-th of the other. All are differentiable and do not grow with
the number of rows. `cka` and `hsic` are larger for rows that belong together than for the same rows shuffled; `kde` and
`dot_product` need not be, whatever they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

BANDWIDTH = 2 * 0.4**2
"""Of the kernel density estimate (code)."""

SMALLEST = 1e-10
"""Keeps logarithms and quotients finite (code)."""


def kde(one: Tensor, two: Tensor) -> Tensor:
    """Return what the code takes for the mutual information, 2 (H1 + H2 - H12) / (H1 + H2).

    Row i belongs to bin j as far as its inner product with row j is near 0: exp(-(r_i . r_j)^2 / (2 s^2)). H1 and H2
    are entropies of the bins, H12 that of pairs of bins; as a row belongs to many bins at once, H1 and H2 are not those
    of the margins of H12, and the value may be negative.
    """
    first, second = _memberships(one), _memberships(two)
    marginals = [part.mean(dim=0) for part in (first, second)]
    h_first, h_second = (_entropy(part / (part.sum() + SMALLEST)) for part in marginals)
    joint = first.T @ second
    information = h_first + h_second - _entropy(joint / (joint.sum() + SMALLEST))
    return 2 * information / (h_first + h_second + SMALLEST)


def _memberships(rows: Tensor) -> Tensor:
    return (-(rows @ rows.T / BANDWIDTH).square() / 2).exp()


def _entropy(shares: Tensor) -> Tensor:
    return -(shares * (shares + SMALLEST).log2()).sum()


def hsic(one: Tensor, two: Tensor) -> Tensor:
    """Return the linear HSIC, tr(K H L H) / (m - 1)^2 with K, L the inner products of the rows."""
    return _covariance(one, two).square().sum()


def cka(one: Tensor, two: Tensor) -> Tensor:
    """Return the linear CKA, HSIC(1, 2) / sqrt(HSIC(1, 1) HSIC(2, 2)), from 0 to 1."""
    return hsic(one, two) / (hsic(one, one) * hsic(two, two) + SMALLEST).sqrt()


def dot_product(one: Tensor, two: Tensor) -> Tensor:
    """Return the Frobenius norm of L K, the products of the rows' inner products, over m^2."""
    # ||A A' B B'||_F^2 = tr((A' A) (A' B) (B' B) (B' A)): no matrix of m x m is made
    cross = one.T @ two
    square = ((one.T @ one) @ cross @ (two.T @ two) * cross).sum()
    return square.clamp(min=SMALLEST).sqrt() / len(one) ** 2


def _covariance(one: Tensor, two: Tensor) -> Tensor:
    one, two = one - one.mean(dim=0), two - two.mean(dim=0)
    return one.T @ two / max(1, len(one) - 1)


MEASURES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"kde": kde, "cka": cka, "hsic": hsic, "dp": dot_product}
