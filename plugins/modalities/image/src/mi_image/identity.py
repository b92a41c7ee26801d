"""What a target says of images under random views: the identity loss of most attacks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mi_image.augment import Augmentation
from micore.kit.losses import RowLoss

Logits = Callable[[Tensor], Tensor]


def view_losses(
    logits: Logits, loss: RowLoss, images: Tensor, labels: Tensor, augmentation: Augmentation, numbers: Tensor
) -> Tensor:
    """Return the loss (B,) of images (B, C, H, W), summed over random views that the target sees in one batch.

    logits: images to (B, K), such as a target's ``module``. numbers: (B, views * n_numbers) in [0, 1), the row's own;
    their length tells how many views there are.
    """
    per_view = numbers.unflatten(1, (-1, augmentation.n_numbers)).transpose(0, 1)
    views = len(per_view)
    seen = augmentation.apply(images.repeat(views, 1, 1, 1), per_view.flatten(0, 1))
    return loss(logits(seen), labels.repeat(views)).view(views, -1).sum(0)


def default_flip(channels: int, flip: float | None) -> float:
    """Return the probability of mirror images: 0.5 for colour and 0 for grey (digits, text) unless one is given."""
    return flip if flip is not None else (0.5 if channels == 3 else 0.0)
