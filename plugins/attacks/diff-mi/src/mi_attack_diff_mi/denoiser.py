"""The class-conditional diffusion model: network, noise schedule, guidance, and its two samplers.

The network is diffusers' U-Net, built from a description and never fetched; the schedule, DDIM and DPM-Solver++ are
diffusers' schedulers. Images are in [-1, 1] here. Times count from 1 (almost clean) to 1000 (noise); time 0 is
the clean image.

Fidelity notes (paper / authors' code / here)
- The authors' network is that of guided-diffusion; diffusers' has the same parts (residual blocks with scale and
  shift by time and class, attention at given resolutions and in the middle) in another order of detail: its
  attention heads have a fixed width rather than a fixed number, and half of its time embedding's sines
  come in another order.
- Classifier-free guidance (Ho & Salimans 2022): w eps(x, t, y) - (w - 1) eps(x, t, null), the null class being the
  last one.
- The clean images that DPM-Solver++ predicts on its way are clipped to [-1, 1]. An error of the noise at time 1000 is
  158 times as large in the clean image, which a network with a short training does not survive.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor, nn

from micore.errors import DataError
from micore.runtime import Runtime

TIMES = 1000
BETAS: dict[str, Any] = {
    "num_train_timesteps": TIMES, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear",
}  # fmt: skip
CLIPPED: dict[str, Any] = {"thresholding": True, "sample_max_value": 1.0}


@dataclass(frozen=True, kw_only=True)
class DenoiserShape:
    """What a denoiser is built from.

    channels, height, width: of the images. n_classes: without the null class. base: channels of the finest level;
    multipliers: of each level, each half as fine as the one before. attention: at which reductions of the side
    there is attention (the middle, after the coarsest level, always has it). head_width: channels of an attention head,
    at most all.
    """

    channels: int
    height: int
    width: int
    n_classes: int
    base: int
    multipliers: tuple[int, ...]
    res_blocks: int
    attention: tuple[int, ...]
    head_width: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DenoiserShape:
        """Read the JSON form."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)


def require_makeable(images: Tensor, multipliers: Sequence[int]) -> None:
    """Check that images (N, C, H, W) can be halved as often as the network has levels.

    Raises: DataError with the size that it needs.
    """
    height, width = images.shape[2:]
    step = 2 ** (len(multipliers) - 1)
    if height % step or width % step:
        raise DataError(
            f"diff-mi cannot make {height}x{width} images: a network of {len(multipliers)} levels halves them "
            f"{len(multipliers) - 1} times",
            hint=f"resize the data to a multiple of {step}, or give fewer -p multipliers",
        )


class Denoiser(nn.Module):
    """Predict the noise in images, with or without a class.

    Its weights are under ``network``; ``null`` is the class that stands for none.
    """

    signal: Tensor

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        self.shape, self.null = shape, shape.n_classes
        self.network = _unet(shape)
        kept = DDPMScheduler(**BETAS).alphas_cumprod
        self.register_buffer("signal", torch.cat([torch.ones(1), kept]), persistent=False)

    def diffuse(self, images: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Return images (B, C, H, W) as they are at times (B,), 0 to 1000: the image itself at 0."""
        kept = self.signal[times].view(-1, 1, 1, 1)
        diffused: Tensor = kept.sqrt() * images + (1 - kept).sqrt() * noise
        return diffused

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Return the noise (B, C, H, W) in images of times (B,), 1 to 1000, and labels (B,)."""
        predicted: Tensor = self.network(noisy, times - 1, labels, return_dict=False)[0]
        return predicted

    def guided(self, noisy: Tensor, times: Tensor, labels: Tensor, scale: float) -> Tensor:
        """Return the noise with classifier-free guidance; one pass over twice the rows unless the scale is 1."""
        if scale == 1:
            plain: Tensor = self(noisy, times, labels).float()
            return plain
        both = torch.cat([labels, torch.full_like(labels, self.null)])
        predicted: Tensor = self(noisy.repeat(2, 1, 1, 1), times.repeat(2), both).float()
        with_class, without = predicted.chunk(2)
        return scale * with_class - (scale - 1) * without

    def predictions(self, noise: Tensor, labels: Tensor, steps: int, scale: float) -> list[Tensor]:
        """Sample from noise (B, C, H, W) with DPM-Solver++ (order 2, multistep, equal times).

        Returns the clean image predicted at each step, the last one being the sample. Differentiable in the
        network's parameters.
        """
        solver = _solver(steps, noise.device)
        images, predicted = noise, list[Tensor]()
        for index in solver.timesteps:
            times = (index + 1).expand(len(images))
            images = solver.step(self.guided(images, times, labels, scale), index, images, return_dict=False)[0]
            predicted.append(solver.model_outputs[-1])
        return predicted

    def refine(self, images: Tensor, labels: Tensor, start: int, grid: int, scale: float, noises: Tensor) -> Tensor:
        """Diffuse images to time ``start`` and bring them back with DDIM (eta 1) on a grid of ``grid`` steps.

        noises: (n_refining_steps(start, grid) + 1, B, C, H, W): for the way out, then for each step back.
        """
        ddim = DDIMScheduler(**BETAS, clip_sample=True, timestep_spacing="leading")
        ddim.set_timesteps(grid)
        now = self.diffuse(images, torch.full_like(labels, start), noises[0])
        for time, noise in zip(_way_back(start, grid), noises[1:], strict=True):
            predicted = self.guided(now, torch.full_like(labels, time), labels, scale)
            now = ddim.step(
                predicted, time - 1, now, eta=1.0, use_clipped_model_output=True, variance_noise=noise,
                return_dict=False,
            )[0]  # fmt: skip
        return now


def _solver(steps: int, device: torch.device) -> DPMSolverMultistepScheduler:
    """Return a solver at its beginning; it keeps what it predicted last."""
    solver = DPMSolverMultistepScheduler(**BETAS, **CLIPPED, solver_order=2, algorithm_type="dpmsolver++")
    with warnings.catch_warnings():  # diffusers 0.42 converts tensors in a way that numpy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        solver.set_timesteps(steps, device=device)
    solver.set_begin_index(0)
    return solver


def _way_back(start: int, grid: int) -> range:
    return range(start, 0, -(TIMES // grid))


def n_refining_steps(start: int, grid: int) -> int:
    """Return how many DDIM steps lead from time ``start`` to a clean image."""
    return len(_way_back(start, grid))


def build_denoiser(shape: DenoiserShape, runtime: Runtime) -> Denoiser:
    """Return an untrained denoiser on the runtime's device."""
    with runtime.seeded("diff-mi", "denoiser"):
        return runtime.maybe_compile(runtime.place(Denoiser(shape)))


def restore_denoiser(shape: DenoiserShape, weights: Mapping[str, Tensor], runtime: Runtime) -> Denoiser:
    """Return a trained denoiser to attack with: in eval mode and without gradients."""
    denoiser = build_denoiser(shape, runtime)
    denoiser.load_state_dict(weights)
    return denoiser.eval().requires_grad_(False)


def _unet(shape: DenoiserShape) -> UNet2DModel:
    widths = tuple(shape.base * factor for factor in shape.multipliers)
    attends = [2**level in shape.attention for level in range(len(widths))]
    narrowest = min([widths[-1], *(width for width, here in zip(widths, attends, strict=True) if here)])
    return UNet2DModel(
        sample_size=(shape.height, shape.width), in_channels=shape.channels, out_channels=shape.channels,
        block_out_channels=widths, layers_per_block=shape.res_blocks,
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
        up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
        attention_head_dim=min(shape.head_width, narrowest), norm_num_groups=gcd(32, shape.base),
        resnet_time_scale_shift="scale_shift", num_class_embeds=shape.n_classes + 1,
    )  # fmt: skip


class DiffusionPrior:
    """A denoiser seen as a prior: labels are drawn uniformly, so no class is aimed at."""

    def __init__(self, denoiser: Denoiser, steps: int, scale: float) -> None:
        self.denoiser, self.steps, self.scale = denoiser, steps, scale

    @torch.no_grad()
    def sample(self, n: int, rng: Any) -> Tensor:
        """Draw n images (n, C, H, W) in [0, 1]."""
        shape = self.denoiser.shape
        noise = rng.normal((n, shape.channels, shape.height, shape.width))
        labels = rng.integers(shape.n_classes, (n,))
        drawn = self.denoiser.predictions(noise, labels, self.steps, self.scale)[-1]
        return to_canonical(drawn)


def to_canonical(images: Tensor) -> Tensor:
    """Convert images from [-1, 1] to [0, 1], clipping what is outside."""
    return ((images + 1) / 2).clamp(0, 1)
