"""The public embedding network F: it tells what images look like, and has never met the target.

With labels F is a classifier and its logits are the embedding, as in C2F-MI. Public images of a run have none, as a
rule; then F learns to tell images apart: two random views of one image should be nearer to each other than to the
views of all others (Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020), and its unit-length output is the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from mi_image.adapter import ImageAdapter
from mi_image.augment import Augmentation
from mi_image.classifiers import ImageClassifier
from mi_image.identity import default_flip
from mi_image.learners import NETWORKS
from micore.inputs import InputSpec
from micore.kit.generator_training import as_float, copied, moments, restore, train_generator
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = ["Embedding", "EmbeddingSettings", "contrast_loss", "embedding_state", "restore_embedding"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """What F is and how it learns.

    network: a name in `mi_image.learners.NETWORKS`; dims: length of the embedding where there are no labels;
    temperature: of the contrast; crop_area, flip: of the views (`mi_image.augment`).
    """

    network: str
    width: int
    dims: int
    iterations: int
    batch_size: int
    learning_rate: float
    temperature: float
    crop_area: float
    flip: float | None


def contrast_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of finding each row's other view among all views of the batch (ICML 2020, eq. 1).

    first, second: (B, dims), of any length; two views of the same B images.
    """
    rows = functional.normalize(torch.cat([first, second]), dim=1)
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similar = (rows @ rows.T / temperature).masked_fill(own, -torch.inf)
    others = torch.arange(len(rows), device=rows.device).roll(len(first))
    return functional.cross_entropy(similar, others)


class Embedding(nn.Module):
    """F, frozen: images (B, 1 or 3, H, W) in [0, 1] of any size to embeddings (B, dims), differentiable in them."""

    def __init__(self, network: nn.Module, shape: tuple[int, int, int], unit: bool) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._fit, self._unit = ImageAdapter(InputSpec(shape=shape)), unit

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (B, dims), of unit length unless F is a classifier."""
        output: Tensor = self.network(self._fit(images)).float()
        return functional.normalize(output, dim=1) if self._unit else output


def embedding_state(
    images: Tensor, labels: Tensor | None, settings: EmbeddingSettings, runtime: Runtime
) -> Mapping[str, Any]:
    """Train F, or take it from the shelf; plain data for `restore_embedding`. The target is not asked.

    images: (N, C, H, W) in [0, 1], labels: (N,) or None, on the runtime's device. Goes on from the runtime's
    checkpoint.
    """
    channels, side = images.shape[1], max(ImageClassifier.min_size, *images.shape[2:])
    outputs = settings.dims if labels is None else int(labels.max()) + 1
    arguments = {
        "network": settings.network, "width": settings.width, "outputs": outputs, "shape": [channels, side, side],
        "unit": labels is None,
    }  # fmt: skip

    def work(stage: Runtime) -> Mapping[str, Any]:
        fit = ImageAdapter(InputSpec(shape=(channels, side, side)))
        training = _Training(_build(arguments, stage), fit, images, labels, settings, stage)
        train_generator(training, settings.iterations, stage, "training the embedding", stage.checkpoints.load())
        return {"arguments": arguments, "weights": copied(training.network.state_dict())}

    digests = {"images": tensor_digest(images), "labels": None if labels is None else tensor_digest(labels)}
    return shared("public-embedding", {"settings": asdict(settings), **digests}, work, runtime)


def restore_embedding(state: Mapping[str, Any], runtime: Runtime) -> Embedding:
    """Return F on the device, in eval mode, without gradients."""
    arguments = state["arguments"]
    network = _build(arguments, runtime)
    network.load_state_dict(state["weights"])
    channels, height, width = arguments["shape"]
    return Embedding(runtime.maybe_compile(network), (channels, height, width), arguments["unit"])


def _build(arguments: Mapping[str, Any], runtime: Runtime) -> nn.Module:
    channels, side, _ = arguments["shape"]
    with runtime.seeded("c2f-mi", "embedding"):
        network = NETWORKS[arguments["network"]](arguments["outputs"], channels, side, width=arguments["width"])
    return runtime.place(network)


class _Training:
    """F's training, step by step (`micore.kit.generator_training.GeneratorTraining`)."""

    def __init__(
        self, network: nn.Module, fit: ImageAdapter, images: Tensor, labels: Tensor | None, settings: EmbeddingSettings,
        runtime: Runtime,
    ) -> None:  # fmt: skip
        self.network, self.iteration = network.train(), 0
        self._images, self._labels, self._settings, self._runtime = images, labels, settings, runtime
        self._views = Augmentation(crop_area=settings.crop_area, flip=default_flip(images.shape[1], settings.flip))
        self._fit = fit
        self._rng = runtime.rng("c2f-mi", "embedding", "batches")
        self._adam = Adam(network.parameters(), settings.learning_rate)

    def step(self) -> None:
        """Take one step on a batch drawn with replacement."""
        rows = self._rng.integers(len(self._images), (self._settings.batch_size,))
        with self._runtime.autocast():
            loss = self._contrast(rows) if self._labels is None else self._classification(rows, self._labels)
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        self._adam.step()
        self.iteration += 1

    def _contrast(self, rows: Tensor) -> Tensor:
        images = as_float(self._images[rows])
        first, second = self.network(torch.cat([self._seen(images), self._seen(images)])).float().chunk(2)
        return contrast_loss(first, second, self._settings.temperature)

    def _classification(self, rows: Tensor, labels: Tensor) -> Tensor:
        logits = self.network(self._seen(as_float(self._images[rows]))).float()
        return functional.cross_entropy(logits, labels[rows])

    def _seen(self, images: Tensor) -> Tensor:
        return self._fit(self._views.apply(images, self._views.draw(self._rng, len(images))))

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that changes."""
        return {
            "iteration": self.iteration, "network": copied(self.network.state_dict()), "adam": moments(self._adam),
            "rng": self._rng.state(),
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.iteration = int(state["iteration"])
        self.network.load_state_dict(state["network"])
        restore(self._adam, state["adam"])
        self._rng.load(state["rng"])
