"""Time one training step of the conditional GAN: layout of the weights against precision.

OMP_NUM_THREADS=1 python benchmarks/gan_step.py
"""

from __future__ import annotations

import sys
import time

import torch

from mi_image.augment import Augmentation
from mi_image.classifiers import SmallCnn
from mi_image.conditional_gan import ConditionalGenerator, ProjectionDiscriminator
from mi_image.gan_training import ConditionalGanTraining, GanSettings
from micore.kit.losses import max_margin
from micore.runtime import Runtime

STEPS = 4
CLASSES = 5


def milliseconds(size: int, channels: int, precision: str, layout: torch.memory_format) -> float:
    """Return the CPU time of a step, after one that warms up."""
    runtime = Runtime.create("cpu", precision)
    with runtime.seeded("gan-step"):
        generator = ConditionalGenerator(CLASSES, 64, size, channels, 16)
        critic = ProjectionDiscriminator(CLASSES, size, channels, 16)
        target = SmallCnn(CLASSES, channels, size).eval().requires_grad_(False)
    for network in (generator, critic, target):
        network.to(memory_format=layout)
    random = runtime.rng("data")
    training = ConditionalGanTraining(
        generator, critic, random.uniform((200, channels, size, size)), random.integers(200, (CLASSES, 50)),
        runtime.rng("gan"), GanSettings(critic_steps=1),
        guidance=lambda images, labels: max_margin(target(images), labels),
        augmentation=Augmentation(flip=0.0), autocast=runtime.autocast,
    )  # fmt: skip
    training.step()
    started = time.process_time()
    for _ in range(STEPS):
        training.step()
    return (time.process_time() - started) / STEPS * 1000


def main() -> None:
    """Print the table."""
    for size, channels in ((16, 1), (32, 3), (64, 3)):
        times = [
            milliseconds(size, channels, precision, layout)
            for precision in ("fp32", "bf16")
            for layout in (torch.contiguous_format, torch.channels_last)
        ]
        sys.stdout.write(f"| {size} px | " + " | ".join(f"{value:.0f}" for value in times) + " |\n")


if __name__ == "__main__":
    main()
