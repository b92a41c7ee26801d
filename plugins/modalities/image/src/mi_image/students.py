"""Students: classifiers that learn to answer like the target on public images, as LOMMA augments its model.

Source: Nguyen, Chandrasegaran, Abdollahzadeh, Cheung: "Re-thinking Model Inversion Attacks Against Deep Neural
Networks", CVPR 2023, section 4.2; the distillation script that the authors released.

Fidelity notes (paper / authors' code / here)
- The authors distil into EfficientNet-B0, B1 and B2, pretrained on ImageNet. Here students are trained from
  scratch: networks of `mi_image.classifiers` in different widths, as no pretrained network comes with the package.
- Loss, optimiser and schedule are theirs: KL(T || S) at temperature 1, SGD with momentum, the rate halved every 20
  epochs.
- The authors ask the target for each batch; the public images are not augmented, so its answers are asked for once.
- All students are trained in one loop over the same batches, each for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from mi_image.classifiers import ImageClassifier, ResNet18, SmallCnn, SmallResNet
from mi_image.gan_steps import as_float, copied
from micore.errors import MiError
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = [
    "NETWORKS",
    "StudentSettings",
    "distillation_loss",
    "require_teachable",
    "restore_students",
    "student_states",
]

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "small-cnn": SmallCnn,
    "small-resnet": SmallResNet,
    "resnet18": ResNet18,
}
"""Architectures by name; each takes a ``width``."""


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """Which students, and how they learn; the numbers of the training are the authors' code.

    network: a name in `NETWORKS`; widths: one student for each; halve_every: epochs between two halvings of the
    learning rate.
    """

    network: str = "resnet18"
    widths: tuple[int, ...] = (48, 64, 80)
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    halve_every: int = 20


def distillation_loss(logits: Tensor, soft_labels: Tensor) -> Tensor:
    """Return the mean KL(T || S) of a student's logits (B, K) from the target's probabilities (B, K)."""
    return functional.kl_div(functional.log_softmax(logits, dim=1), soft_labels, reduction="batchmean")


def require_teachable(images: Tensor) -> None:
    """Check that students can look at images like these, (N, C, H, W), before any work is done.

    Raises MiError for images that are too small.
    """
    least = ImageClassifier.min_size
    if min(images.shape[2:]) < least:
        raise MiError(
            f"students need images of at least {least} pixels, not {images.shape[2]}x{images.shape[3]}",
            hint="resize the data (-D size=...), or choose a variant of the attack without students",
        )


def student_states(
    images: Tensor, soft_labels: Tensor, settings: StudentSettings, runtime: Runtime
) -> Mapping[str, Any]:
    """Train all students, or take them from the shelf; plain data for `restore_students`.

    images: (N, C, H, W), float in [0, 1] or uint8; soft_labels: (N, K), the target's probabilities; both on the
    runtime's device. Resumes bit for bit at the end of an epoch, from ``runtime.checkpoints`` (without a shelf; with
    one it has a checkpoint of its own).
    """
    arguments = {
        "network": settings.network, "widths": list(settings.widths), "n_classes": soft_labels.shape[1],
        "channels": images.shape[1], "size": images.shape[2],
    }  # fmt: skip

    def work(stage: Runtime) -> Mapping[str, Any]:
        training = _Training(_networks(arguments, stage), images, soft_labels, settings, stage)
        training.run()
        return {"arguments": arguments, "weights": [copied(network.state_dict()) for network in training.networks]}

    digests = {"images": tensor_digest(images), "labels": tensor_digest(soft_labels)}
    return shared("students", {"settings": asdict(settings), **digests}, work, runtime)


def restore_students(state: Mapping[str, Any], runtime: Runtime) -> list[nn.Module]:
    """Return the students, which take canonical images: on the device, in eval mode, without gradients."""
    networks = _networks(state["arguments"], runtime)
    for network, weights in zip(networks, state["weights"], strict=True):
        network.load_state_dict(weights)
        runtime.maybe_compile(network.eval().requires_grad_(False))
    return networks


def _networks(arguments: Mapping[str, Any], runtime: Runtime) -> list[nn.Module]:
    build, shape = NETWORKS[arguments["network"]], (arguments["channels"], arguments["size"])
    networks: list[nn.Module] = []
    for number, width in enumerate(arguments["widths"]):
        with runtime.seeded("students", "parameters", number):
            networks.append(runtime.place(build(arguments["n_classes"], *shape, width=width)))
    return networks


class _Training:
    """Epochs over the public images, each with a random order of its own."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        images: Tensor,
        soft_labels: Tensor,
        settings: StudentSettings,
        runtime: Runtime,
    ) -> None:
        self.networks = [network.train() for network in networks]
        self.images, self.soft_labels, self.settings, self.runtime = images, soft_labels, settings, runtime
        self.optimizers = [
            SGD(network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay)
            for network in networks
        ]
        self.epoch = 0

    def run(self) -> None:
        """Train to the last epoch."""
        saved = self.runtime.checkpoints.load()
        if saved is not None:
            self._load(saved)
        with self.runtime.progress.track("training students", self.settings.epochs) as report:
            while self.epoch < self.settings.epochs:
                self._take_epoch()
                self.epoch += 1
                report(self.epoch)
                self.runtime.checkpoints.offer(self._state)

    def _take_epoch(self) -> None:
        settings = self.settings
        rate = settings.learning_rate * 0.5 ** (self.epoch // settings.halve_every)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
        order = self.runtime.rng("students", "order", self.epoch).permutation(len(self.images))
        for rows in order.to(self.images.device).split(settings.batch_size):
            if len(rows) > 1 or len(order) == 1:  # batch normalisation cannot use a batch of one
                self._step(as_float(self.images[rows]), self.soft_labels[rows])

    def _step(self, images: Tensor, soft_labels: Tensor) -> None:
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            with self.runtime.autocast():
                logits = network(images)
            optimizer.zero_grad(set_to_none=True)
            distillation_loss(logits.float(), soft_labels).backward()
            optimizer.step()

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "weights": [copied(network.state_dict()) for network in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def _load(self, saved: Mapping[str, Any]) -> None:
        self.epoch = int(saved["epoch"])
        for network, weights in zip(self.networks, saved["weights"], strict=True):
            network.load_state_dict(weights)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
