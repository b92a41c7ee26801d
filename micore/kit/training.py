"""Training of networks, classifiers above all, with the hooks that defenses use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from micore.answers import HasTask, LearnsAtOnce
from micore.contracts import Config, Defense, Samples, Split
from micore.errors import ModelError
from micore.runtime import Random, Runtime


class TrainingConfig(Config):
    """How a target is trained."""

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
    validation: float = Field(
        0.0, ge=0, lt=0.5,
        description="share of the private samples kept aside to choose the epoch that is kept; 0: the last one",
    )  # fmt: skip


Sampler = Callable[[Tensor, int, Random], Sequence[Tensor]]
"""(labels (N,), batch size, random stream) -> the rows of each batch of an epoch, on the CPU."""


def shuffled(labels: Tensor, batch_size: int, rng: Random) -> Sequence[Tensor]:
    """Return all rows in a random order, in batches; one that is left over alone is left out."""
    batches = rng.permutation(len(labels)).split(batch_size)
    return [rows for rows in batches if len(rows) > 1 or len(labels) == 1]  # batch normalisation needs two


@dataclass(frozen=True)
class PartOf:
    """Some rows of a split; its labels count from ``first_label`` of the whole."""

    whole: Split
    rows: Tensor
    first_label: int = 0

    @property
    def labels(self) -> Tensor | None:
        """Class of each sample, int64 (N,), or None."""
        return None if self.whole.labels is None else self.whole.labels[self.rows] - self.first_label

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.rows)

    def take(self, indices: Sequence[int] | Tensor) -> Samples:
        """Return these samples of the part."""
        return self.whole.take(self.rows[torch.as_tensor(indices)])


def set_aside(split: Split, share: float, rng: Random) -> tuple[Split, Split | None]:
    """Divide a labelled split into what is trained on and a share of each class, at least one sample, to validate on.

    With a share of 0 everything is trained on. Raises: ModelError for classes of one sample.
    """
    if share == 0:
        return split, None
    labels = _labels(split)
    order = rng.permutation(len(labels))
    kept, aside = [], []
    for label in labels.unique():
        rows = order[labels[order] == label]
        n = max(1, round(share * len(rows)))
        if n == len(rows):
            raise ModelError(
                f"class {int(label)} has one sample: nothing is left to validate on", hint="-p validation=0"
            )
        aside.append(rows[:n])
        kept.append(rows[n:])
    parts = [torch.cat(rows).sort().values for rows in (kept, aside)]
    return PartOf(split, parts[0]), PartOf(split, parts[1])


def _labels(split: Split) -> Tensor:
    if split.labels is None:
        raise ModelError("training needs labels, and this split has none")
    return split.labels


def placed(samples: Samples, runtime: Runtime) -> Samples:
    """Return samples on the runtime's device; such as are no tensors are nowhere, and stay as they are."""
    return samples.to(runtime.device) if isinstance(samples, Tensor) else samples


OF_STEPS = ("adapt_training", "adapt_inputs", "training_loss", "begin")
"""What defenses do to the steps of a training."""


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

    @property
    def passed(self) -> bool:
        """Whether the forward pass was made."""
        return self._logits is not None

    def give(self, logits: Tensor) -> None:
        """Take the logits (B, classes) of the inputs from a forward pass that was made of more than these.

        Raises: ModelError when the pass was made already, or for another number of rows.
        """
        if self.passed:
            raise ModelError("the forward pass of this batch was made already")
        if len(logits) != len(self.inputs):
            raise ModelError(f"{len(logits)} rows of logits for a batch of {len(self.inputs)}")
        self._logits = logits.float()


class Trainer:
    """Trains a network on one split: a classifier, or one that says its own task (`micore.answers.HasTask`).

    Each epoch has its own random streams, so a training that was killed goes on bit for bit from
    the last saved epoch. Defenses may replace ``optimizer``, ``scheduler`` and ``sampler``.

    validation: where the best epoch is looked for, which is then kept; None: the last is. public: labelled samples
    that are not private, for defenses that pre-train; its labels begin with 0.
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
        n_classes: int | None = None,
        validation: Split | None = None,
        public: Split | None = None,
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.defenses = tuple(defenses)
        self.module = runtime.place(module)
        self.purpose = purpose
        self.adapter = adapter
        self.augment = augment
        self.split = split
        self.n_classes = int(_labels(split).max()) + 1 if n_classes is None else n_classes
        self.validation = validation
        self.public = public
        self.sampler: Sampler = shuffled
        self._best: dict[str, Any] = {"quality": -math.inf, "epoch": 0, "module": {}}
        for defense in self.defenses:
            self.split = defense.adapt_data(self.split)
        self.steps_per_epoch = max(1, -(-len(self.split) // config.batch_size))
        self.optimizer = self.make_optimizer()
        self.scheduler = self.make_scheduler()
        for defense in self.defenses:
            defense.adapt_training(self)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the configured optimiser of all parameters that are trained."""
        config = self.config
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if config.optimizer == "adam":
            return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
        return torch.optim.SGD(
            parameters, config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )  # fmt: skip

    def make_scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the configured schedule of the current optimiser."""
        if self.config.schedule == "constant":
            return torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        return torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.config.epochs * self.steps_per_epoch)

    def fit(self) -> None:
        """Train to the last epoch, from the saved state if there is one; a network that learns at once, once.

        Raises: ModelError when the loss stops being finite, or a defense of steps meets a network that makes none.
        """
        if isinstance(self.module, LearnsAtOnce):
            self._learn_at_once(self.module)
            return
        first = self._resume()
        if first == 0:
            with self.runtime.seeded(self.purpose, "begin"):
                for defense in self.defenses:
                    defense.begin(self)
        with self.runtime.progress.track("training", self.config.epochs) as report:
            for epoch in range(first, self.config.epochs):
                with self.runtime.seeded(self.purpose, epoch):
                    self._epoch(epoch)
                self._validate(epoch)
                report(epoch + 1)
                self.runtime.checkpoints.offer(partial(self._state, epoch + 1))
        if self.validation is not None:
            self.module.load_state_dict(self._best["module"])

    def _learn_at_once(self, module: LearnsAtOnce) -> None:
        for defense in self.defenses:
            if any(getattr(type(defense), name) is not getattr(Defense, name) for name in OF_STEPS):
                raise ModelError(
                    f"{type(defense).__name__} changes the steps of a training, and this model learns at once",
                    hint="a network that is trained in steps, or a defense of the answers",
                )
        samples = placed(self.split.take(torch.arange(len(self.split))), self.runtime)
        labels = _labels(self.split).to(self.runtime.device)
        module.learn(self.adapter(samples).to(self.runtime.device), labels, self.runtime.rng(self.purpose, "learn"))
        self._best["epoch"] = self.config.epochs

    @property
    def kept_epoch(self) -> int:
        """The epoch whose model is kept, counted from 1."""
        return self.config.epochs if self.validation is None else int(self._best["epoch"])

    def _epoch(self, epoch: int) -> None:
        self.module.train()
        total = torch.zeros((), device=self.runtime.device)
        for inputs, labels in self.batches(epoch):
            total += self.step(TrainingBatch(self.module, inputs, labels, epoch, self.config.epochs))
        if not torch.isfinite(total):
            raise ModelError(f"training diverged in epoch {epoch + 1}", hint="lower -p learning_rate")

    def step(self, batch: TrainingBatch) -> Tensor:
        """Take one step; return its loss, without gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.runtime.autocast():
            for defense in self.defenses:
                batch.inputs = defense.adapt_inputs(batch.inputs, batch.labels)
            loss = self.loss(batch)
        loss.backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels of each step of an epoch, on the device; augmented, not yet adapted."""
        all_labels = _labels(self.split)
        stream = self.runtime.rng(self.purpose, "augment", epoch)
        for indices in self.sampler(all_labels, self.config.batch_size, self.runtime.rng(self.purpose, "order", epoch)):
            samples = placed(self.split.take(indices), self.runtime)
            changed = self.augment(samples, self.config.augment, stream)
            yield self.adapter(changed).to(self.runtime.device), all_labels[indices].to(self.runtime.device)

    def _validate(self, epoch: int) -> None:
        """Remember this epoch's model if it is the best so far on the samples kept aside; of equals the later one."""
        part = self.validation
        last = epoch + 1 == self.config.epochs
        if part is None or not (last or all(item.is_complete(epoch, self.config.epochs) for item in self.defenses)):
            return
        found = self._quality(part)
        if found >= self._best["quality"]:
            weights = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
            self._best = {"quality": found, "epoch": epoch + 1, "module": weights}

    @torch.no_grad()
    def _quality(self, part: Split) -> float:
        """Return the accuracy on samples that were kept aside, or how low the loss of the network's own task is."""
        if not isinstance(self.module, HasTask):
            return accuracy(predict(self.module, part.take, len(part), self.adapter, self.runtime), _labels(part))
        self.module.eval()
        losses = [
            self.module.task_loss(self.adapter(part.take(rows)).to(self.runtime.device), _labels(part)[rows]).sum()
            for rows in torch.arange(len(part)).split(self.config.batch_size)
        ]
        return -float(torch.stack(losses).sum()) / len(part)

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the loss of one batch: cross-entropy or the network's own, as changed by the defenses in order."""

        def task_loss() -> Tensor:
            if isinstance(self.module, HasTask):
                return self.module.task_loss(batch.inputs, batch.labels).mean()
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
            "best": self._best,
            "defenses": [defense.training_state() for defense in self.defenses],
        }

    def _resume(self) -> int:
        state = self.runtime.checkpoints.load()
        if state is None:
            return 0
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self._best = state["best"]
        for defense, kept in zip(self.defenses, state["defenses"], strict=True):
            defense.resume(kept)
        return int(state["epoch"])


@torch.no_grad()
def predict(
    module: nn.Module, samples: Callable[[Tensor], Samples], n: int, adapter: Callable[[Samples], Tensor],
    runtime: Runtime, batch_size: int = 256,
) -> Tensor:  # fmt: skip
    """Return the logits of n samples, (n, classes), on the CPU; ``samples(indices)`` gives them."""
    module.eval()
    batches = torch.arange(n).split(batch_size)
    inputs = (adapter(placed(samples(indices), runtime)).to(runtime.device) for indices in batches)
    return torch.cat([module(batch).float().cpu() for batch in inputs])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is the label's."""
    return float((logits.argmax(dim=1) == labels.cpu()).double().mean())
