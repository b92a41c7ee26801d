"""What the target says: pseudo labels, each class's mean features, and the loss that pulls images to a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_image.augment import Augmentation
from micore.kit.features import features_and_logits
from micore.kit.losses import top_k_margin
from micore.kit.selection import top_k_per_class
from micore.runtime import Runtime

QUERY_BATCH = 256


@dataclass(frozen=True)
class Profile:
    """Rows of the public images that the target is surest of, members (K, n), and their mean features (K, d)."""

    members: Tensor
    features: Tensor


@torch.no_grad()
def class_profile(module: nn.Module, images: Tensor, n_top: int, runtime: Runtime) -> Profile:
    """Ask the target once about each public image (N, C, H, W) in [0, 1]."""
    features, scores = [], []
    with runtime.progress.track("pseudo labels", len(images)) as report:
        for batch in images.split(QUERY_BATCH):
            inner, logits = features_and_logits(module, batch)
            features.append(inner.float().flatten(1))
            scores.append(logits.float().softmax(dim=1))
            report(sum(map(len, scores)))
    members = top_k_per_class(torch.cat(scores), min(n_top, len(images))).indices
    return Profile(members, torch.cat(features)[members].mean(dim=1))


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """The identity loss (paper, equations 7 and 8): top-k margin and distance to the class's mean features.

    module: the target; features (K, d): one row per class; k: rivals in the margin; weight: of the features.
    """

    module: nn.Module
    features: Tensor
    k: int
    weight: float

    def losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (B,) and the logits (B, K) of images (B, C, H, W) in [0, 1]."""
        inner, logits = features_and_logits(self.module, images)
        distance = functional.mse_loss(inner.float().flatten(1), self.features[labels], reduction="none").mean(dim=1)
        return top_k_margin(logits, labels, k=self.k) + self.weight * distance, logits


@dataclass(frozen=True, kw_only=True)
class Views:
    """Random views of an image in the search: mirror image, brightness, blur ("Diff-aug", authors' code).

    flip: probability of a mirror image. brightness: largest relative change, in half of the views. blur: standard
    deviation of a blur in half of the views, as a part of the image's side.
    """

    flip: float
    brightness: float
    blur: float

    @property
    def n_numbers(self) -> int:
        """Random numbers of one view."""
        return Augmentation.n_numbers + 1

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Change images (B, C, H, W) in [0, 1] by numbers (B, n_numbers) in [0, 1): same shape and range."""
        plain = Augmentation(
            crop_area=1, flip=self.flip, rotation=0, brightness=self.brightness, contrast=0, colour_probability=0.5
        )
        seen = plain.apply(images, numbers[:, :-1])
        blurred = (numbers[:, -1] < 0.5).view(-1, 1, 1, 1)
        return torch.where(blurred, _blur(seen, self.blur * images.shape[3]), seen) if self.blur else seen


def _blur(images: Tensor, deviation: float) -> Tensor:
    """Blur with a Gaussian of ``deviation`` pixels, cut off at one deviation as 7 px are for 3 in the authors' code."""
    radius = max(1, round(deviation))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    line = torch.softmax(-offsets.square() / (2 * deviation**2), dim=0)
    flat = images.flatten(0, 1)[:, None]
    padded = functional.pad(flat, (radius,) * 4, mode="reflect")
    blurred = functional.conv2d(functional.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return blurred.view_as(images)


IdentityLosses = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images (B, C, H, W) in [0, 1], labels (B,), numbers (B, P) in [0, 1)) -> losses (B,)."""


def seen_losses(guidance: Guidance, views: Views, images: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
    """Return the mean loss (B,) over views that the target sees in one batch; numbers: (B, views * n_numbers)."""
    per_view = numbers.unflatten(1, (-1, views.n_numbers)).transpose(0, 1)
    n = len(per_view)
    seen = views.apply(images.repeat(n, 1, 1, 1), per_view.flatten(0, 1))
    return guidance.losses(seen, labels.repeat(n))[0].view(n, -1).mean(dim=0)


def seen_through(guidance: Guidance, views: Views) -> IdentityLosses:
    """Return `seen_losses` as a function of images, labels and numbers alone."""
    return partial(seen_losses, guidance, views)
