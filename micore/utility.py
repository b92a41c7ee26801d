"""What a target is worth to those it is for: how good the answers are that they get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.answers import HasQuality, HasTask, answer_of, is_classifier, task_losses
from micore.contracts import Dataset, Defense, Samples, Split
from micore.defense import guarded
from micore.errors import DataError
from micore.kit.training import accuracy, placed
from micore.runtime import Runtime

ANSWER_BATCH = 256
NEIGHBOURS = 10
CALIBRATION_BINS = 15


def measure(
    module: nn.Module,
    adapter: Callable[[Samples], Tensor],
    dataset: Dataset,
    trained: Split | None,
    runtime: Runtime,
    defenses: Sequence[Defense] = (),
) -> dict[str, Any]:
    """Measure, on what was trained on (if known) and on held-out private data, the answers as the defenses leave them.

    Gives of a classifier for each ``accuracy`` and ``samples``; of held-out data also ``calibration_error`` and
    ``score_change``, the mean L1 distance that defenses move the scores of a sample, from 0 to 2. Of a network with a
    task of its own for each ``loss``, ``samples`` and what it says of its quality; of one without, an encoder, see
    `neighbour_overlap`.
    """
    parts = {
        name: part
        for name, part in (("train", trained), ("holdout", _holdout(dataset)))
        if part is not None and len(part)
    }
    if isinstance(module, HasTask):
        return _losses(module, adapter, parts, runtime)
    if not is_classifier(module):
        return _neighbours(module, adapter, parts.get("holdout"), runtime, defenses)
    found: dict[str, Any] = {}
    for name, part in parts.items():
        if part.labels is None:
            continue
        raw, given = (answers(module, adapter, part, runtime, guards) for guards in ((), defenses))
        found[f"{name}_accuracy"] = accuracy(given, part.labels)
        found[f"{name}_samples"] = len(part)
        if name == "holdout":
            found["holdout_calibration_error"] = round(calibration_error(given, part.labels), 4)
            found["holdout_score_change"] = round(float((given - raw).abs().sum(dim=1).mean()), 4)
    return found


def _losses(
    module: nn.Module, adapter: Callable[[Samples], Tensor], parts: Mapping[str, Split], runtime: Runtime
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in parts.items():
        found[f"{name}_loss"] = round(mean_loss(module, adapter, part, runtime), 4)
        found |= {f"{name}_{what}": value for what, value in _qualities(module, adapter, part, runtime).items()}
        found[f"{name}_samples"] = len(part)
    return found


@torch.no_grad()
def _qualities(
    module: nn.Module, adapter: Callable[[Samples], Tensor], split: Split, runtime: Runtime
) -> dict[str, float]:
    """Return the means over a split of what a network says of its own quality."""
    if not isinstance(module, HasQuality) or split.labels is None:
        return {}
    module.eval()
    parts: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(split)).split(ANSWER_BATCH):
        inputs = adapter(placed(split.take(rows), runtime)).to(runtime.device)
        for name, values in module.quality(inputs, split.labels[rows].to(runtime.device)).items():
            parts.setdefault(name, []).append(values.double().cpu())
    return {name: round(float(torch.cat(values).mean()), 4) for name, values in parts.items()}


@torch.no_grad()
def mean_loss(module: nn.Module, adapter: Callable[[Samples], Tensor], split: Split, runtime: Runtime) -> float:
    """Return the mean over a split of what a network learns to lower, see `micore.answers.task_losses`."""
    module.eval()
    labels = torch.zeros(len(split), dtype=torch.int64) if split.labels is None else split.labels
    total = 0.0
    for rows in torch.arange(len(split)).split(ANSWER_BATCH):
        inputs = adapter(placed(split.take(rows), runtime)).to(runtime.device)
        total += float(task_losses(module, inputs, labels[rows].to(runtime.device)).double().sum())
    return total / len(split)


def _neighbours(
    module: nn.Module, adapter: Callable[[Samples], Tensor], part: Split | None, runtime: Runtime,
    defenses: Sequence[Defense],
) -> dict[str, Any]:  # fmt: skip
    if part is None or len(part) <= NEIGHBOURS:
        return {}
    raw, given = (answers(module, adapter, part, runtime, guards) for guards in ((), defenses))
    return {"holdout_neighbour_overlap": round(neighbour_overlap(raw, given), 4), "holdout_samples": len(part)}


def neighbour_overlap(raw: Tensor, given: Tensor, k: int = NEIGHBOURS) -> float:
    """Return the share of the k nearest neighbours by cosine that embeddings (N, d) keep when they are given otherwise.

    From 0 to 1: how well a search among embeddings that a defense has changed finds what it found before.
    """
    found = []
    for vectors in (raw, given):
        unit = functional.normalize(vectors.double(), dim=1)
        found.append((unit @ unit.T).fill_diagonal_(-2).topk(k, dim=1).indices)
    same = (found[0][:, :, None] == found[1][:, None, :]).any(dim=2)
    return float(same.double().mean())


def answering(
    module: nn.Module, adapter: Callable[[Samples], Tensor], defenses: Sequence[Defense]
) -> Callable[[Samples], Tensor]:
    """Return the function from canonical samples to the scores (N, classes) that a user gets, without gradients."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def answer(samples: Samples) -> Tensor:
        return guarded(answer_of(module, adapter(samples).to(device)), samples, defenses)

    return answer


def answers(
    module: nn.Module, adapter: Callable[[Samples], Tensor], split: Split, runtime: Runtime,
    defenses: Sequence[Defense] = (),
) -> Tensor:  # fmt: skip
    """Return the scores (N, classes) that a user gets of a whole split, on the CPU."""
    answer, found = answering(module.eval(), adapter, defenses), []
    for rows in torch.arange(len(split)).split(ANSWER_BATCH):
        found.append(answer(placed(split.take(rows), runtime)).cpu())
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
