"""Training a network of the adversary's on rows of tokens for a number of steps, in batches of similar length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mi_text.adapter import pad
from micore.answers import task_losses
from micore.errors import ModelError
from micore.runtime import Runtime

POOL = 16
"""Batches that are sorted by length together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """How a network is trained: AdamW with warm-up and a cosine down to 0, gradients clipped to norm 1."""

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01

    def rate(self, step: int) -> float:
        """Return the factor of the learning rate at a step."""
        warmup = min(self.warmup, max(1, self.steps // 10))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))


def train_steps(
    module: nn.Module, losses: Callable[[Tensor], Tensor], lengths: Sequence[int], plan: StepPlan, runtime: Runtime,
    purpose: str,
) -> list[float]:  # fmt: skip
    """Train in place for ``plan.steps`` steps; return the loss every twentieth of the way.

    losses: rows int64 (B,), on the CPU, to the losses (B,) of these examples; lengths: tokens of each example.
    A training that was killed goes on bit for bit from the runtime's checkpoints.

    Raises: ModelError when the loss stops being finite.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), plan.learning_rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay
    )
    saved = runtime.checkpoints.load()
    done, history, running = 0, list[float](), torch.zeros((), device=runtime.device)
    if saved is not None:
        done, history, running = int(saved["done"]), list(saved["history"]), saved["running"].to(runtime.device)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
    every = max(1, plan.steps // 20)
    module.train()
    with runtime.progress.track(purpose, plan.steps) as report:
        for step in range(done, plan.steps):
            rows = batch_of(step, lengths, plan.batch_size, runtime, purpose)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * plan.rate(step)
            optimizer.zero_grad(set_to_none=True)
            with runtime.seeded(purpose, step), runtime.autocast():
                loss = losses(rows).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            running = running + loss.detach()
            if (step + 1) % every == 0:
                history.append(_checked(float(running) / every, purpose))
                running = torch.zeros((), device=runtime.device)
            report(step + 1)
            runtime.checkpoints.offer(partial(_state, step + 1, history, running, module, optimizer))
    module.eval()
    return history


def learn_texts(
    module: nn.Module, rows: Sequence[Sequence[int]], plan: StepPlan, runtime: Runtime, purpose: str
) -> tuple[dict[str, Tensor], list[float]]:
    """Train a network that says its own task (`micore.answers.HasTask`) on texts, rows of ids without empty ones.

    Returns its weights, on the CPU, and the losses of `train_steps`.
    """

    def losses(chosen: Tensor) -> Tensor:
        batch = pad([rows[row] for row in chosen.tolist()]).to(runtime.device)
        return task_losses(module, batch, torch.zeros(len(batch), dtype=torch.int64, device=runtime.device))

    history = train_steps(module, losses, [len(row) for row in rows], plan, runtime, purpose)
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}, history


def batch_of(step: int, lengths: Sequence[int], size: int, runtime: Runtime, purpose: str) -> Tensor:
    """Return the rows of a step: examples of similar length, each row once in a pass over all."""
    per_pass = max(1, len(lengths) // size)
    turn, place = divmod(step, per_pass)
    order = runtime.rng(purpose, "order", turn).permutation(len(lengths))
    pool, inside = divmod(place, POOL)
    start = pool * POOL * size
    stop = min(start + POOL * size, per_pass * size if len(lengths) >= size else len(lengths))
    rows = order[start:stop]
    known = torch.as_tensor(lengths)
    by_length = rows[known[rows].argsort(stable=True)]
    batches = by_length.split(size)
    mixed = runtime.rng(purpose, "mix", turn, pool).permutation(len(batches))
    chosen: Tensor = batches[int(mixed[inside])]
    return chosen


def _checked(loss: float, purpose: str) -> float:
    if not math.isfinite(loss):
        raise ModelError(f"{purpose} diverged", hint="lower the learning rate")
    return round(loss, 5)


def _state(
    done: int, history: Sequence[float], running: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    return {
        "done": done, "history": list(history), "running": running, "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
    }  # fmt: skip
