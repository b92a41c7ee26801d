"""The control of false positives: noise that is fitted to the first judge, and to nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from micore.contracts import Case, EvaluatorModel, Reconstruction, Subject
from micore.runtime import Runtime

PROBE = "adversarial-noise"
"""The subject that holds nothing of any class and that the first judge accepts all the same."""

SURE = 0.95
"""The probability of the class that a judge must give to noise."""


def probe(
    judge: EvaluatorModel, labels: Iterable[int], like: Tensor, bounds: tuple[float, float], *,
    n: int, steps: int, runtime: Runtime,
) -> Subject:  # fmt: skip
    """Return n samples of noise for each class, moved until this judge takes them for it.

    like: any samples (N, ...) of the shape that is wanted. Neither the target nor another judge is asked.
    """
    items = [
        Reconstruction(
            case=Case(id=f"class-{label}", goal="class", label=label),
            samples=fitted(judge, label, (n, *like.shape[1:]), bounds, steps, runtime).cpu(),
            scores=torch.zeros(n),
        )
        for label in labels
    ]
    return Subject(name=PROBE, reconstructions=items)


def fitted(
    judge: EvaluatorModel, label: int, shape: tuple[int, ...], bounds: tuple[float, float], steps: int, runtime: Runtime
) -> Tensor:
    """Return uniform noise after steps of the gradient's sign, each of 2 % of the range (I-FGSM).

    A sample stands still once the judge is `SURE` of it, or after so many steps: on and on, the gradient would begin to
    draw the class, and other judges would be right to see it.
    """
    low, high = bounds
    samples = low + (high - low) * runtime.rng("consensus", "probe", label).uniform(shape)
    labels = torch.full((len(samples),), label, device=runtime.device)
    for _ in range(steps):
        samples = samples.detach().requires_grad_()
        logits = judge.module(judge.adapter(samples).to(runtime.device)).float()
        losses = functional.cross_entropy(logits, labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), samples)
        moves = (losses > -math.log(SURE)).view(-1, *[1] * (samples.ndim - 1))
        samples = (samples - 0.02 * (high - low) * gradient.sign() * moves).clamp(low, high)
    return samples.detach()
