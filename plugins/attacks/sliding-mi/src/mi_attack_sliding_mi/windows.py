"""Windows of a waveform: where they lie, and an optimiser that begins anew in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mi_audio.adapter import RATE, rate_of
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.row_optimizers import RowOptimizer, State
from micore.kit.search import Draw

HOP = RATE // 100
"""Samples between the chunks that a reconstruction is tried on: 10 ms."""


def window_of(network: nn.Module, spec: InputSpec) -> int:
    """Return the shortest input of a network, in canonical samples.

    Raises: ModelError when the network does not say it.
    """
    for module in network.modules():
        least = getattr(module, "min_length", None)
        if isinstance(least, int):
            return -(-least * RATE // rate_of(spec))
    raise ModelError("the network does not say how long its window is", hint="-p window_s=0.2")


def offsets(length: int, window: int, stride: int) -> list[int]:
    """Return where the windows of a waveform begin, in rising order; the last one ends where it ends."""
    found = list(range(0, length - window + 1, stride))
    return found if found[-1] == length - window else [*found, length - window]


def cut(waveforms: Tensor, begins: Tensor, window: int) -> Tensor:
    """Return the window of each waveform (B, length) that begins at (B, 1), (B, window)."""
    return waveforms.gather(1, begins.long() + torch.arange(window, device=waveforms.device))


def schedule(places: Sequence[int], inner_steps: int, passes: int, others: Draw, device: torch.device) -> Draw:
    """Return numbers for each of a row's steps: where its window begins, then what another draw gives."""
    course = torch.tensor(list(places) * passes, dtype=torch.float32, device=device).repeat_interleave(inner_steps)
    done: dict[int, int] = {}

    def draw(row: int, n: int) -> Tensor:
        begin = done.get(row, 0)
        done[row] = begin + n
        index = torch.arange(begin, begin + n, device=device).clamp(max=len(course) - 1)
        return torch.cat([course[index][:, None], others(row, n)], dim=1)

    return draw


@dataclass(frozen=True, kw_only=True)
class Afresh:
    """A row optimiser that forgets after every ``every`` steps of a row: each window has its own.

    What lies outside the window has no gradient, hence no moments, and stays where it is.
    """

    optimizer: RowOptimizer
    every: int

    def start(self, values: Tensor) -> State:
        """Return the optimiser's state."""
        return self.optimizer.start(values)

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step."""
        own = (steps - 1) % self.every + 1
        fresh = (own == 1).view(-1, *[1] * (values.ndim - 1))
        begun = tuple(
            torch.where(fresh, new, old) for new, old in zip(self.optimizer.start(values), state, strict=True)
        )
        return self.optimizer.step(values, gradients, begun, own)


def shifted(waveforms: Tensor, window: int) -> Tensor:
    """Return all windows of waveforms (N, length), one every 10 ms, (N, windows, window)."""
    return waveforms.unfold(1, window, HOP)
