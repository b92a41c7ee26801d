"""The teacher: a network of the student's architecture, and what it makes of samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.contracts import Defense, NoConfig, Samples, Split
from micore.kit.training import Trainer, TrainingBatch
from micore.runtime import Checkpoints


def renewed(module: nn.Module) -> nn.Module:
    """Return a copy whose layers drew their parameters anew (torch's global generator), but for frozen layers.

    Parameters of layers without ``reset_parameters`` keep the copied values.
    """
    fresh = copy.deepcopy(module)
    for layer in fresh.modules():
        own = list(layer.parameters(recurse=False))
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset) and (not own or any(parameter.requires_grad for parameter in own)):
            reset()
    return fresh


class AtTemperature(Defense):
    """Cross-entropy of logits that are divided by a temperature, times the temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__(NoConfig())
        self._temperature = temperature

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss of the teacher; its gradient is as large as without a temperature."""
        return self._temperature * functional.cross_entropy(batch.logits / self._temperature, batch.labels)


def trained(module: nn.Module, private: Split, trainer: Trainer, temperature: float) -> nn.Module:
    """Train a teacher as the student will be, without its defenses; return it, frozen and in eval mode."""
    nested = Trainer(
        module, private, config=trainer.config, adapter=trainer.adapter, augment=trainer.augment,
        runtime=trainer.runtime.with_checkpoints(Checkpoints()),
        defenses=(AtTemperature(temperature),), purpose=f"{trainer.purpose}-teacher", n_classes=trainer.n_classes,
        validation=trainer.validation,
    )  # fmt: skip
    nested.fit()
    return frozen(nested.module)


def frozen(module: nn.Module) -> nn.Module:
    """Return the network as one that only answers."""
    return module.eval().requires_grad_(False)


def distillation(student: Tensor, teacher: Tensor, temperature: float, trained_at: float) -> Tensor:
    """Return ``T^2 / t KL(softmax(teacher / T) || softmax(student / T))``, the mean over rows of logits (B, classes).

    With t, the temperature that the teacher was trained at, the gradient keeps its size: t = 1 gives the factor of
    Hinton et al. (arXiv:1503.02531, section 2), and t = T, where the teacher's answers at T are as sharp as
    anybody's at 1, undoes the division by T alone.
    """
    given = functional.log_softmax(teacher.float() / temperature, dim=1)
    own = functional.log_softmax(student.float() / temperature, dim=1)
    divergence = functional.kl_div(own, given, reduction="batchmean", log_target=True)
    return temperature**2 / trained_at * divergence


class PublicSplit:
    """Public samples under the classes that the teacher gives them; until it is there, all are of class 0."""

    def __init__(self, public: Split) -> None:
        self._public = public
        self.labels: Tensor = torch.zeros(len(public), dtype=torch.int64)

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._public)

    def take(self, indices: Sequence[int] | Tensor) -> Samples:
        """Return these samples."""
        return self._public.take(indices)
