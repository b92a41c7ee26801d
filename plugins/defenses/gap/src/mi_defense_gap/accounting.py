"""The privacy of noisy sums over neighbours, by Renyi differential privacy.

Neighbouring graphs differ in one undirected edge {i, j}. It stands twice in the adjacency: with rows of length 1 at
most, the sums of i and of j each change by 1 at most, and the matrix of all sums by sqrt(2).

A Gaussian mechanism of sensitivity D and deviation s has Renyi divergence a D^2 / (2 s^2) of order a (Mironov, CSF
2017, proposition 7); hops add up, and (a, r) gives (r + log(1 / delta) / (a - 1), delta) (proposition 3). With
rho = hops D^2 / (2 s^2) the best order is 1 + sqrt(log(1 / delta) / rho), which makes

    epsilon = rho + 2 sqrt(rho log(1 / delta))

What that means to an adversary who knows all but the one edge: so many Gaussian mechanisms are as one with sensitivity
D sqrt(hops) (Dong, Roth, Su, JRSS B 2022, corollary 3.3), and the best that she can do is to tell N(0, 1) from N(m, 1)
with m = D sqrt(hops) / s.
"""

from __future__ import annotations

import math

SENSITIVITY = math.sqrt(2)
"""Of the sums over neighbours of all nodes to one undirected edge, in the Frobenius norm."""


def epsilon_of(noise: float, hops: int, delta: float) -> float | None:
    """Return the epsilon of so many hops with noise of this deviation; None without noise, 0 without hops."""
    if not hops:
        return 0.0
    if not noise:
        return None
    rho = hops * SENSITIVITY**2 / (2 * noise**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def noise_for(epsilon: float, hops: int, delta: float) -> float:
    """Return the smallest deviation of the noise with which so many hops spend at most epsilon; 0 without hops."""
    log = math.log(1 / delta)
    root = math.sqrt(log + epsilon) - math.sqrt(log)  # of rho
    return SENSITIVITY * math.sqrt(hops / 2) / root


def auc_bound(noise: float, hops: int) -> float:
    """Return the highest AUC with which anyone tells a graph with an edge from the same without it."""
    if not hops:
        return 0.5
    return 0.5 * (1 + math.erf(SENSITIVITY * math.sqrt(hops) / noise / 2)) if noise else 1.0


def usual_delta(n_nodes: int) -> float:
    """Return one over the pairs of nodes, at most 1e-5: it depends on no edge."""
    return min(1e-5, 2 / (n_nodes * max(1, n_nodes - 1)))
