"""What a target is worth to those it is for: accuracy and calibration of the answers that they get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from micore.contracts import Dataset, Defense, Samples, Split
from micore.defense import guarded
from micore.errors import DataError
from micore.kit.training import accuracy
from micore.runtime import Runtime

ANSWER_BATCH = 256
CALIBRATION_BINS = 15


def measure(
    module: nn.Module,
    adapter: Callable[[Samples], Tensor],
    dataset: Dataset,
    trained: Split,
    runtime: Runtime,
    defenses: Sequence[Defense] = (),
) -> dict[str, Any]:
    """Measure, on what was trained on and on held-out private data, the answers as the defenses leave them.

    Gives for each ``accuracy`` and ``samples``; of held-out data also ``calibration_error`` and ``score_change``, the
    mean L1 distance that defenses move the scores of a sample, from 0 to 2.
    """
    found: dict[str, Any] = {}
    for name, part in (("train", trained), ("holdout", _holdout(dataset))):
        if part is None or part.labels is None or len(part) == 0:
            continue
        raw, given = (answers(module, adapter, part, runtime, guards) for guards in ((), defenses))
        found[f"{name}_accuracy"] = accuracy(given, part.labels)
        found[f"{name}_samples"] = len(part)
        if name == "holdout":
            found["holdout_calibration_error"] = round(calibration_error(given, part.labels), 4)
            found["holdout_score_change"] = round(float((given - raw).abs().sum(dim=1).mean()), 4)
    return found


def answering(
    module: nn.Module, adapter: Callable[[Samples], Tensor], defenses: Sequence[Defense]
) -> Callable[[Samples], Tensor]:
    """Return the function from canonical samples to the scores (N, classes) that a user gets, without gradients."""

    @torch.no_grad()
    def answer(samples: Samples) -> Tensor:
        return guarded(module(adapter(samples)).float().softmax(dim=1), samples, defenses)

    return answer


def answers(
    module: nn.Module, adapter: Callable[[Samples], Tensor], split: Split, runtime: Runtime,
    defenses: Sequence[Defense] = (),
) -> Tensor:  # fmt: skip
    """Return the scores (N, classes) that a user gets of a whole split, on the CPU."""
    answer, found = answering(module.eval(), adapter, defenses), []
    for rows in torch.arange(len(split)).split(ANSWER_BATCH):
        samples = split.take(rows)
        samples = samples.to(runtime.device) if isinstance(samples, Tensor) else samples
        found.append(answer(samples).cpu())
    return torch.cat(found)


def calibration_error(scores: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over bins of confidence.

    scores: (N, classes), probabilities; labels: (N,). From 0 to 1. Source: Guo et al., "On Calibration of Modern Neural
    Networks" (ICML 2017), equation 3, with bins of equal width.
    """
    confidence, chosen = scores.double().max(dim=1)
    right = (chosen == labels.cpu()).double()
    bin_of = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, bin_of, right - confidence)
    return float(gaps.abs().sum() / len(labels))


def _holdout(dataset: Dataset) -> Split | None:
    try:
        return dataset.split("holdout")
    except DataError:
        return None
