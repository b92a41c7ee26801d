"""How slow the machine is at this moment, so that bounds of time mean the same everywhere."""

from __future__ import annotations

import time

import torch
from torch import nn

REFERENCE_S = 0.06
"""What the piece of work below takes where bounds hold as they stand: one core at 60 GFLOP/s in small convolutions."""

_ROUNDS, _STEPS, _SIDE, _BATCH = 3, 8, 16, 16


def slowness() -> float:
    """Return how many times slower than the reference this process runs now, at least 1.

    Small convolutions forward and backward, as targets and generators of toy problems have them; the quickest of some
    rounds, in processor time. A machine that is busy with other work counts as slow: its cores share their units.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 16, 3, padding=1),
        )  # fmt: skip
    samples = torch.zeros(_BATCH, 16, _SIDE, _SIDE)
    return max(1.0, min(_work(network, samples) for _ in range(_ROUNDS)) / REFERENCE_S)


def _work(network: nn.Module, samples: torch.Tensor) -> float:
    started = time.process_time()
    for _ in range(_STEPS):
        network(samples).sum().backward()
    spent = time.process_time() - started
    return spent / max(1, torch.get_num_threads())
