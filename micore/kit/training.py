"""Training of classifiers, with the hooks that defenses use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from micore.contracts import Config, Defense, Samples, Split
from micore.errors import ModelError
from micore.runtime import Runtime


class TrainingConfig(Config):
    """How a classifier is trained."""

    epochs: int = Field(30, ge=1, description="passes over the data")
    batch_size: int = Field(64, ge=2, description="samples of one step")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="sgd has Nesterov momentum")
    learning_rate: float = Field(2e-3, gt=0, description="highest step size of the schedule")
    weight_decay: float = Field(1e-4, ge=0, description="L2 coefficient (decoupled for adam)")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="of the step size, per step")
    augment: Literal["none", "light", "medium", "strong"] = Field(
        "medium", description="random changes of the samples; strong also erases parts"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm; none when empty")


class TrainingBatch:
    """One step's data; the forward pass is made once, when a loss first asks for it.

    inputs: the model's input, after augmentation; labels: int64 (B,); epoch counts from 0.
    """

    def __init__(self, module: nn.Module, inputs: Tensor, labels: Tensor, epoch: int, epochs: int) -> None:
        self.inputs = inputs
        self.labels = labels
        self.epoch = epoch
        self.epochs = epochs
        self._module = module
        self._logits: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """The model's output for the inputs, (B, classes), float32."""
        if self._logits is None:
            self._logits = self._module(self.inputs).float()
        return self._logits


class Trainer:
    """Trains a classifier on one split.

    Each epoch has its own random streams, so a training that was killed goes on bit for bit from
    the last saved epoch. Defenses may replace ``optimizer`` and ``scheduler``.
    """

    def __init__(
        self,
        module: nn.Module,
        split: Split,
        *,
        config: TrainingConfig,
        adapter: Callable[[Samples], Tensor],
        augment: Callable[[Samples, str, Any], Samples],
        runtime: Runtime,
        defenses: Sequence[Defense] = (),
        purpose: str = "train",
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.defenses = tuple(defenses)
        self.module = runtime.place(module)
        self._purpose = purpose
        self._adapter = adapter
        self._augment = augment
        self.split = split
        for defense in self.defenses:
            self.split = defense.adapt_data(self.split)
        self.steps_per_epoch = max(1, -(-len(self.split) // config.batch_size))
        self.optimizer = self._make_optimizer()
        self.scheduler = self._make_scheduler()
        for defense in self.defenses:
            defense.adapt_training(self)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if config.optimizer == "adam":
            return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
        return torch.optim.SGD(
            parameters, config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )  # fmt: skip

    def _make_scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        if self.config.schedule == "constant":
            return torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        return torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.config.epochs * self.steps_per_epoch)

    def fit(self) -> None:
        """Train to the last epoch, from the saved state if there is one.

        Raises: ModelError when the loss stops being finite.
        """
        first = self._resume()
        with self.runtime.progress.track("training", self.config.epochs) as report:
            for epoch in range(first, self.config.epochs):
                with self.runtime.seeded(self._purpose, epoch):
                    self._epoch(epoch)
                report(epoch + 1)
                self.runtime.checkpoints.offer(partial(self._state, epoch + 1))

    def _epoch(self, epoch: int) -> None:
        self.module.train()
        total = torch.zeros((), device=self.runtime.device)
        for inputs, labels in self._batches(epoch):
            batch = TrainingBatch(self.module, inputs, labels, epoch, self.config.epochs)
            self.optimizer.zero_grad(set_to_none=True)
            with self.runtime.autocast():
                loss = self.loss(batch)
            loss.backward()
            if self.config.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
            self.optimizer.step()
            self.scheduler.step()
            total += loss.detach()
        if not torch.isfinite(total):
            raise ModelError(f"training diverged in epoch {epoch + 1}", hint="lower -p learning_rate")

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self.split.labels is None:
            raise ModelError("training needs labels, and this split has none")
        order = self.runtime.rng(self._purpose, "order", epoch).permutation(len(self.split))
        stream = self.runtime.rng(self._purpose, "augment", epoch)
        for indices in order.split(self.config.batch_size):
            if len(indices) == 1 and len(order) > 1:
                continue  # batch normalisation cannot use a batch of one
            samples = self.split.take(indices).to(self.runtime.device)
            changed = self._augment(samples, self.config.augment, stream)
            yield self._adapter(changed), self.split.labels[indices].to(self.runtime.device)

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the loss of one batch: cross-entropy, as changed by the defenses in order."""

        def task_loss() -> Tensor:
            return functional.cross_entropy(batch.logits, batch.labels)

        current = task_loss
        for defense in self.defenses:
            current = partial(defense.training_loss, self.module, batch, current)
        return current()

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def _resume(self) -> int:
        state = self.runtime.checkpoints.load()
        if state is None:
            return 0
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return int(state["epoch"])


@torch.no_grad()
def predict(
    module: nn.Module, samples: Callable[[Tensor], Samples], n: int, adapter: Callable[[Samples], Tensor],
    runtime: Runtime, batch_size: int = 256,
) -> Tensor:  # fmt: skip
    """Return the logits of n samples, (n, classes), on the CPU; ``samples(indices)`` gives them."""
    module.eval()
    batches = torch.arange(n).split(batch_size)
    return torch.cat([module(adapter(samples(indices).to(runtime.device))).float().cpu() for indices in batches])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is the label's."""
    return float((logits.argmax(dim=1) == labels.cpu()).double().mean())
