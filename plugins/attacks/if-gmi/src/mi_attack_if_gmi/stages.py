"""The stages of the search: first the style code alone, then the code and the features that enter a block.

A row of a stage is one vector: the code, and behind it the features, flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_image.stylegan_attacks import StyleGround
from micore.kit.case_rows import tiled
from micore.kit.projections import project_l1_ball
from micore.runtime import Runtime

__all__ = ["Stage", "next_stage", "style_stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a stage begins, and what its rows mean.

    index: 0 for the code alone, else the block whose input is searched. starts (N, w_dim + features). shape: of the
    features (C, H, W), None in stage 0. pictures (N, channels, H, W): what the earlier blocks have drawn, None where
    nothing is carried over.
    """

    ground: StyleGround
    index: int
    starts: Tensor
    shape: torch.Size | None = None
    pictures: Tensor | None = None

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """What rendering needs of each row besides its values."""
        return {} if self.pictures is None else {"pictures": self.pictures}

    def styles(self, values: Tensor) -> Tensor:
        """Return the codes (B, w_dim) of rows."""
        return values[:, : self.ground.generator.w_dim]

    def features(self, values: Tensor) -> Tensor | None:
        """Return the features (B, C, H, W) of rows; None in stage 0."""
        return None if self.shape is None else values[:, self.ground.generator.w_dim :].unflatten(1, self.shape)

    def render(self, values: Tensor, pictures: Tensor | None = None) -> Tensor:
        """Return the images (B, C, S, S) in [0, 1] of rows, with their earlier pictures."""
        features = self.features(values)
        if features is None:
            return self.ground.render(self.styles(values))
        return self.ground.cut(self.ground.generator.finish(features, pictures, self.styles(values), self.index))

    def advance(self, values: Tensor, pictures: Tensor | None = None) -> Tensor:
        """Return what enters the next block: rows of features and picture, flattened one behind the other."""
        generator, styles, features = self.ground.generator, self.styles(values), self.features(values)
        features, pictures = generator.advance(features, pictures, styles, self.index, self.index + 1)
        return torch.cat([features.flatten(1), pictures.flatten(1)], dim=1)

    def project(self, values: Tensor, starts: Tensor, style_radius: float, feature_radius: float) -> Tensor:
        """Project code and features of rows into L1 balls around where they began (10.5)."""
        code = project_l1_ball(self.styles(values), self.styles(starts), style_radius)
        if self.shape is None:
            return code
        rest = self.ground.generator.w_dim
        return torch.cat([code, project_l1_ball(values[:, rest:], starts[:, rest:], feature_radius)], dim=1)


def style_stage(ground: StyleGround, starts: Tensor) -> Stage:
    """Return stage 0, which begins at codes (N, w_dim)."""
    return Stage(ground=ground, index=0, starts=starts)


def next_stage(stage: Stage, values: Tensor, runtime: Runtime, *, carry_image: bool) -> Stage:
    """Return the stage that begins where ``values`` (N, ...) of this one ended.

    carry_image: whether it goes on with the picture so far, or with none as the authors' code does.
    """
    index, generator = stage.index + 1, stage.ground.generator
    shape, drawn = torch.Size(generator.feature_shape(index)), torch.Size(generator.skip_shape(index))
    entering = tiled(stage.advance, runtime.tile, values, *stage.constants.values())
    features, pictures = entering.split([shape.numel(), drawn.numel()], dim=1)
    return Stage(
        ground=stage.ground,
        index=index,
        starts=torch.cat([stage.styles(values), features], dim=1),
        shape=shape,
        pictures=pictures.unflatten(1, drawn) if carry_image else None,
    )
