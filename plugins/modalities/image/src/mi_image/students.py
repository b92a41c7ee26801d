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

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mi_image.classifiers import ImageClassifier
from mi_image.learners import Learners, build_networks, learner_arguments
from micore.errors import MiError
from micore.kit.generator_training import as_float
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = [
    "StudentSettings",
    "distillation_loss",
    "require_teachable",
    "restore_students",
    "student_states",
]

PURPOSE = "students"


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """Which students, and how they learn; the numbers of the training are the authors' code.

    network: a name in `mi_image.learners.NETWORKS`; widths: one student for each; halve_every: epochs between two
    halvings of the learning rate.
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
    arguments = learner_arguments(settings.network, settings.widths, soft_labels.shape[1], images)

    def work(stage: Runtime) -> Mapping[str, Any]:
        learners = Learners(
            build_networks(arguments, stage, PURPOSE), stage, momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
        epoch = partial(_take_epoch, learners, images, soft_labels, settings)
        learners.run(epoch, settings.epochs, "training students")
        return {"arguments": arguments, "weights": learners.weights()}

    digests = {"images": tensor_digest(images), "labels": tensor_digest(soft_labels)}
    return shared(PURPOSE, {"settings": asdict(settings), **digests}, work, runtime)


def restore_students(state: Mapping[str, Any], runtime: Runtime) -> list[nn.Module]:
    """Return the students, which take canonical images: on the device, in eval mode, without gradients."""
    networks = build_networks(state["arguments"], runtime, PURPOSE)
    for network, weights in zip(networks, state["weights"], strict=True):
        network.load_state_dict(weights)
        runtime.maybe_compile(network.eval().requires_grad_(False))
    return networks


def _take_epoch(learners: Learners, images: Tensor, soft_labels: Tensor, settings: StudentSettings, epoch: int) -> None:
    """Go through the public images once, in an order of the epoch's own."""
    rate = settings.learning_rate * 0.5 ** (epoch // settings.halve_every)
    order = learners.runtime.rng(PURPOSE, "order", epoch).permutation(len(images))
    for rows in order.to(images.device).split(settings.batch_size):
        if len(rows) > 1 or len(order) == 1:  # batch normalisation cannot use a batch of one
            loss = partial(distillation_loss, soft_labels=soft_labels[rows])
            learners.step(as_float(images[rows]), loss, rate)
