"""Public images that a target is asked about, random views of them, and what it says: attacks that learn from answers.

A target of other classes is sure of few public images. Views (crops, turns, mirror images) are further images of the
same domain, some of which it takes for its classes; each costs one query, like the image itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from mi_image.augment import Augmentation
from micore.contracts import Config, Split
from micore.errors import DataError
from micore.runtime import Runtime

__all__ = ["PUBLIC_FIELDS", "PublicQueryConfig", "asked", "raised"]

BATCH = 256


class PublicQueryConfig(Config):
    """Settings of the images that the target is asked about: by default each public image, once."""

    views: int = Field(0, ge=0, description="random views of each public image that the target is asked about, too")
    view_area: float = Field(1.0, gt=0, le=1, description="smallest share of an image that a view shows")
    view_flip: float = Field(0.0, ge=0, le=1, description="share of the views that are mirrored")
    view_rotation: float = Field(0.0, ge=0, le=180, description="largest angle of a view in degrees")
    asked: int | None = Field(None, ge=1, description="images and views that are asked about, at most; none: all")

    def public_queries(self, n_public: int) -> int:
        """Return what asking costs, one query for each image and view."""
        wanted = n_public * (1 + self.views)
        return wanted if self.asked is None else min(wanted, self.asked)

    def public_images(self, public: Split | None, runtime: Runtime, attack: str) -> Tensor:
        """Return public images, then views of them, (N, C, H, W) in [0, 1] on the run's device.

        With a limit (``asked``) the images, or the views of the last round, are spread evenly over the data.

        Raises: DataError without public images.
        """
        if public is None or len(public) == 0:
            raise DataError(f"{attack} needs public images")
        n, wanted = len(public), self.public_queries(len(public))
        rows = torch.cat([_spread(n, min(n, wanted - start)) for start in range(0, wanted, n)])
        images = public.take(rows).to(runtime.device)
        return torch.cat([images[:n], self._views(images[n:], runtime)])

    def _views(self, images: Tensor, runtime: Runtime) -> Tensor:
        change = Augmentation(self.view_area, self.view_flip, self.view_rotation, brightness=0.0, contrast=0.0)
        return change.apply(images, change.draw(runtime.rng("public", "views"), len(images)))


PUBLIC_FIELDS = frozenset(PublicQueryConfig.model_fields)
"""The fields that a preparation depends on."""


def _spread(n: int, chosen: int) -> Tensor:
    """Return so many of 0..n-1, evenly spread, in order."""
    return torch.arange(chosen) * n // max(chosen, 1)


@torch.no_grad()
def asked(ask: Callable[[Tensor], Tensor], images: Tensor, runtime: Runtime) -> Tensor:
    """Return a target's answers (N, ...) to images (N, C, H, W), one query each; a killed work goes on.

    ask: such as `micore.target.Target.scores`.
    """
    saved = runtime.checkpoints.load()
    answers = saved["answers"].to(images.device) if saved else ask(images[:BATCH])
    with runtime.progress.track("asking the target about public images", len(images)) as report:
        while len(answers) < len(images):
            report(len(answers))
            runtime.checkpoints.offer(lambda so_far=answers: {"answers": so_far})  # type: ignore[misc]
            answers = torch.cat([answers, ask(images[len(answers) : len(answers) + BATCH])])
        report(len(answers))
    return answers


def raised(scores: Tensor, labels: Tensor, confidence: float | Tensor) -> Tensor:
    """Return score vectors (N, K) in which the label (N,) has at least this probability, a number or (N,).

    The others share what is left, in the proportions that they have. A row that is surer already stays as it is. Where
    the others are all 0, as rounded answers can be, they stay so.
    """
    own = scores.gather(1, labels[:, None])
    wanted = torch.as_tensor(confidence, dtype=scores.dtype, device=scores.device).expand(len(scores))[:, None]
    others = scores.scatter(1, labels[:, None], 0.0)
    shares = others / others.sum(dim=1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    moved = (shares * (1 - wanted)).scatter(1, labels[:, None], wanted)
    return torch.where(own >= wanted, scores, moved)
