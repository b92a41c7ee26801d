"""Bounds of time follow the machine."""

from __future__ import annotations

import torch

from micore.testing import pace


def test_a_slower_machine_counts_as_slower(monkeypatch):
    monkeypatch.setattr(pace, "REFERENCE_S", 1e9)
    assert pace.slowness() == 1
    monkeypatch.setattr(pace, "REFERENCE_S", 1e-6)
    assert pace.slowness() > 100


def test_measuring_moves_no_global_generator():
    before = torch.get_rng_state()
    pace.slowness()
    assert torch.equal(torch.get_rng_state(), before)
