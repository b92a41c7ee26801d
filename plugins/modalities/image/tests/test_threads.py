"""Training survives several threads: a layout of the weights that crashes oneDNN is kept away from targets."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import torch
from mi_image.classifiers import SmallResNet
from mi_image.conditional_gan import ConditionalGenerator
from micore.runtime import Runtime

runtime = Runtime.create("cpu")
target = runtime.place(SmallResNet(10, 1, 16, width=8))
generator = runtime.place_channels_last(ConditionalGenerator(10, 8, 16, 1, 4))
for _ in range(40):
    labels = torch.randint(10, (33,))
    torch.nn.functional.cross_entropy(target(generator(torch.randn(33, 8), labels)), labels).backward()
"""


def test_a_narrow_residual_target_behind_a_generator_trains_on_two_threads() -> None:
    """33 pictures, 8 to 16 channels, a strided 1x1 convolution: crashes when the target is channels last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
