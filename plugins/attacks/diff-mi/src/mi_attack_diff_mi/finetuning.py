"""Stage B: the denoiser is tuned so that the target recognises what it samples, resumable bit for bit.

Only the class embeddings and the middle block's convolutions and projections learn. A short sampling trajectory is
made with gradients; the clean image predicted at *every* step of it is shown to the target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mi_attack_diff_mi.denoiser import Denoiser, to_canonical
from mi_attack_diff_mi.guidance import Guidance
from mi_attack_diff_mi.pretraining import weights_of
from mi_image.augment import Augmentation
from micore.runtime import Random, Runtime


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings:
    """How the denoiser is tuned.

    epochs: at most so many passes over the classes; accuracy: it ends after an epoch whose samples the target
    recognised at this rate, None: never early. steps: of the solver; scale: of the guidance; views: per image.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    accuracy: float | None
    steps: int
    scale: float
    views: int


class Finetuning:
    """Tune step by step; every step draws from a stream of its own.

    ``epochs`` holds the rate at which the target recognised the last predictions of each finished epoch.
    """

    def __init__(
        self, denoiser: Denoiser, guidance: Guidance, augmentation: Augmentation, settings: FinetuningSettings,
        runtime: Runtime,
    ) -> None:  # fmt: skip
        self.denoiser, self.guidance, self.augmentation = denoiser.eval().requires_grad_(False), guidance, augmentation
        self.settings, self.runtime = settings, runtime
        self.learning = list(learning_parameters(denoiser))
        for parameter in self.learning:
            parameter.requires_grad_(True)
        self.adam = torch.optim.AdamW(self.learning, settings.learning_rate, weight_decay=0.0)
        self.batch, self.epochs = 0, list[float]()
        self._hits = torch.zeros((), device=runtime.device)

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return -(-self.denoiser.shape.n_classes // self.settings.batch_size)

    @property
    def done(self) -> bool:
        """Whether the last epoch has been taken, or the target recognises enough."""
        bar = self.settings.accuracy
        reached = bool(self.epochs) and bar is not None and self.epochs[-1] >= bar
        return reached or len(self.epochs) >= self.settings.epochs

    def step(self) -> None:
        """Take one step on a batch of classes; end the epoch after the last one."""
        epoch = len(self.epochs)
        order = self.runtime.rng("diff-mi", "order", epoch).permutation(self.denoiser.shape.n_classes)
        labels = order.split(self.settings.batch_size)[self.batch].to(self.runtime.device)
        loss, hits = self._loss(labels, self.runtime.rng("diff-mi", "fine-tuning", epoch, self.batch))
        gradients = torch.autograd.grad(loss, self.learning)
        for parameter, gradient in zip(self.learning, gradients, strict=True):
            parameter.grad = gradient
        self.adam.step()
        self._hits = self._hits + hits
        self.batch += 1
        if self.batch == self.n_batches:
            self.epochs.append(float(self._hits) / self.denoiser.shape.n_classes)
            self.batch, self._hits = 0, torch.zeros_like(self._hits)

    def _loss(self, labels: Tensor, rng: Random) -> tuple[Tensor, Tensor]:
        """Return the mean loss over all predictions and views, and how many last predictions are recognised."""
        shape, views = self.denoiser.shape, self.settings.views
        noise = rng.normal((len(labels), shape.channels, shape.height, shape.width))
        with self.runtime.autocast():
            predicted = self.denoiser.predictions(noise, labels, self.settings.steps, self.settings.scale)
            images = to_canonical(torch.cat(predicted)).repeat(views, 1, 1, 1)
            seen = self.augmentation.apply(images, self.augmentation.draw(rng, len(images)))
            wanted = labels.repeat(views * self.settings.steps)
            losses, logits = self.guidance.losses(seen, wanted)
        hits = (logits.detach().argmax(dim=1) == wanted).float().view(views, self.settings.steps, -1)
        return losses.mean(), hits[:, -1].mean(dim=0).sum()

    def state(self) -> dict[str, Any]:
        """Return what changes, as a checkpoint."""
        return {
            "denoiser": self.denoiser.state_dict(), "adam": self.adam.state_dict(), "batch": self.batch,
            "epochs": self.epochs, "hits": self._hits,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.adam.load_state_dict(state["adam"])
        self.batch, self.epochs = int(state["batch"]), list(state["epochs"])
        self._hits = state["hits"].to(self._hits.device)


def learning_parameters(denoiser: Denoiser) -> Iterator[nn.Parameter]:
    """Yield the class embeddings, then the middle block's convolutions and projections, without its time layers."""
    yield from denoiser.network.get_submodule("class_embedding").parameters()
    for name, layer in denoiser.network.get_submodule("mid_block").named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.endswith("time_emb_proj"):
            yield from layer.parameters()


def finetune(
    denoiser: Denoiser, guidance: Guidance, augmentation: Augmentation, settings: FinetuningSettings, runtime: Runtime
) -> dict[str, Any]:
    """Tune to the end, from the saved state if there is one; return the weights and the accuracies."""
    tuning = Finetuning(denoiser, guidance, augmentation, settings, runtime)
    saved = runtime.checkpoints.load()
    if saved is not None:
        tuning.load(saved)
    with runtime.progress.track("tuning the diffusion model", settings.epochs) as report:
        while not tuning.done:
            tuning.step()
            report(len(tuning.epochs))
            runtime.checkpoints.offer(tuning.state)
    return {"denoiser": weights_of(denoiser), "accuracies": tuning.epochs}
