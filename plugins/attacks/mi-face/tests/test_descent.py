"""The descent of algorithm 1: steps, and at which of them an image is processed."""

from __future__ import annotations

import torch

from mi_attack_mi_face.descent import ProcessedDescent


def test_without_process_it_is_gradient_descent() -> None:
    descent, start = ProcessedDescent(learning_rate=0.1), torch.tensor([[[[1.0]]], [[[2.0]]]])
    moved, state = descent.step(start, 2 * start, descent.start(start), torch.ones(2))
    torch.testing.assert_close(moved, 0.8 * start)
    assert state == ()


def test_each_row_is_processed_at_its_own_steps() -> None:
    descent = ProcessedDescent(learning_rate=0.5, process=lambda rows: rows + 100, every=3)
    values, steps = torch.zeros(4, 1, 1, 1), torch.tensor([1.0, 3.0, 4.0, 6.0])
    moved, _ = descent.step(values, torch.ones_like(values), (), steps)
    assert moved.flatten().tolist() == [-0.5, 99.5, -0.5, 99.5]
