"""Starts: the first random latents of each class, in the order they were drawn, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_attack_brep_mi.starts import Starts, StartSettings, draw_starts
from micore.runtime import Checkpoints, Runtime

CPU = Runtime(device=torch.device("cpu"))
DIM = 3


def by_angle(n: int) -> Callable[[Tensor], Tensor]:
    """Classes by the angle of the first two coordinates."""
    return lambda latents: ((torch.atan2(latents[:, 1], latents[:, 0]) / torch.pi + 1) * n / 2).long().clamp(0, n - 1)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=30), cut=st.integers(1, 29), wanted=st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_each_class_keeps_its_first_latents(labels: list[int], cut: int, wanted: int) -> None:
    latents = torch.arange(len(labels) * DIM, dtype=torch.float32).view(-1, DIM)
    starts = Starts(latents=torch.zeros(4, wanted, DIM), counts=torch.zeros(4, dtype=torch.int64), drawn=0)
    for part in (slice(0, cut), slice(cut, None)):
        starts = starts.add(latents[part], torch.tensor(labels[part], dtype=torch.int64))
    for label in range(4):
        own = [latents[i] for i, other in enumerate(labels) if other == label][:wanted]
        assert int(starts.counts[label]) == len(own)
        for place, latent in enumerate(own):
            assert torch.equal(starts.latents[label, place], latent)
    assert starts.drawn == len(labels)


def test_looking_ends_when_every_class_has_its_starts_or_at_the_bound() -> None:
    asked = []

    def ask(latents: Tensor) -> Tensor:
        asked.append(latents)
        return by_angle(4)(latents)

    few = draw_starts(ask, 4, DIM, StartSettings(wanted=2, batch=8, batches=50, box=1.5), CPU)
    assert few.complete
    assert few.drawn == 8 * len(asked) < 400
    assert torch.cat(asked).abs().max() <= 1.5
    assert torch.equal(by_angle(4)(few.latents.flatten(0, 1)), torch.arange(4).repeat_interleave(2))
    never = draw_starts(by_angle(4), 5, DIM, StartSettings(wanted=2, batch=8, batches=6, box=1.5), CPU)
    assert never.drawn == 48
    assert never.counts.tolist()[4] == 0


def test_a_class_with_few_starts_repeats_them() -> None:
    starts = Starts(latents=torch.arange(12.0).view(2, 3, 2), counts=torch.tensor([2, 3]), drawn=9)
    chosen = starts.of(torch.tensor([1, 0]), 5)
    assert chosen[0, :, 0].tolist() == [6, 8, 10, 6, 8]
    assert chosen[1, :, 0].tolist() == [0, 2, 0, 2, 0]


class Killing(Checkpoints):
    """Saves every state and dies at one of them."""

    def __init__(self, path: Path, last: int) -> None:
        super().__init__(path, interval_s=0.0)
        self.left = last

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_killed_look_goes_on_without_asking_again(tmp_path: Path) -> None:
    settings_ = StartSettings(wanted=9, batch=4, batches=12, box=1.5)
    whole, asked = draw_starts(by_angle(4), 4, DIM, settings_, CPU), []

    def ask(latents: Tensor) -> Tensor:
        asked.append(len(latents))
        return by_angle(4)(latents)

    with pytest.raises(KeyboardInterrupt):
        draw_starts(ask, 4, DIM, settings_, CPU.with_checkpoints(Killing(tmp_path / "c.safetensors", 3)))
    again = draw_starts(ask, 4, DIM, settings_, CPU.with_checkpoints(Checkpoints(tmp_path / "c.safetensors", 1e9)))
    assert torch.equal(again.latents, whole.latents)
    assert sum(asked) == whole.drawn == again.drawn
