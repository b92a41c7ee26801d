"""The two parts of the mechanism that the guarantee rests on: how batches are drawn, and what a step may use."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from opacus.optimizers import DPOptimizer  # type: ignore[import-untyped]
from torch import Tensor

from micore.errors import ModelError
from micore.runtime import Random


class PoissonSampler:
    """Every record is in a batch with the same probability, whatever else is in it (`kit.training.Sampler`).

    A batch may turn out empty. Networks and augmentations need not take zero samples, so the first record stands in
    for an empty batch; ``sizes`` tells the optimiser, which leaves its gradient out and adds the noise alone.
    """

    def __init__(self, rate: float, steps: int) -> None:
        self.rate = rate
        self.steps = steps
        self.sizes: deque[int] = deque()

    def __call__(self, labels: Tensor, batch_size: int, rng: Random) -> list[Tensor]:
        """Return the rows of an epoch's batches, on the CPU."""
        generator = torch.Generator()
        generator.manual_seed(rng.seed())
        drawn = [self._draw(len(labels), generator) for _ in range(self.steps)]
        self.sizes = deque(map(len, drawn))
        return [rows if len(rows) else torch.zeros(1, dtype=torch.int64) for rows in drawn]

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(n, generator=generator, dtype=torch.float64) < self.rate).nonzero().flatten()


class PoissonOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser for the batches of a `PoissonSampler`; refuses gradients that are not those of its samples."""

    def __init__(self, optimizer: torch.optim.Optimizer, sampler: PoissonSampler, **arguments: Any) -> None:
        super().__init__(optimizer, **arguments)
        self._sampler = sampler
        self._clipped = 0

    def clip_what_is_there(self) -> None:
        """Clip and add up the gradients of some samples of a batch, so that others may take their place."""
        self._clipped += len(self.params[0].grad_sample)
        self.clip_and_accumulate()

    def pre_step(self, closure: Any = None) -> Any:
        """Clip, add up and add noise.

        Raises: ModelError when a parameter has not exactly one gradient for each sample of the batch.
        """
        size, clipped = self._sampler.sizes.popleft(), self._clipped
        self._clipped = 0
        for parameter in self.params:
            gradients = getattr(parameter, "grad_sample", None)
            if not isinstance(gradients, Tensor) or clipped + len(gradients) != max(1, size):
                raise ModelError(
                    f"a parameter of shape {tuple(parameter.shape)} has not one gradient for each of the "
                    f"{max(1, size)} samples of a step, so the privacy guarantee would not hold",
                    hint="its layer is used without being called, or more than once, or a loss mixes samples",
                )
            if size == 0:
                parameter.grad_sample = torch.zeros_like(gradients)
        return super().pre_step(closure)
