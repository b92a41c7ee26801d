"""A frozen StyleGAN2 as the adversary's prior: W, W+, truncation, P space and the features inside.

Users: PPA (ICML 2022; W), MIRROR (NDSS 2022; P space), IF-GMI (ECCV 2024; features), VMI (NeurIPS 2021; W+).
Pictures are in [0, 1] and noise is the network's own constant, so that a style code always gives the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mi_image.stylegan2 import StyleGan2Generator, to_canonical
from micore.errors import ModelError
from micore.kit.projections import Box, p_space_box
from micore.runtime import Random, Runtime

__all__ = ["StyleGanPrior", "build_stylegan", "restore_stylegan"]

_MAPPED_ROWS = 4096
_RENDERED_ROWS, _RENDERED_PIXELS = 32, 2**22
"""Most pictures, and pixels, that are drawn at once when samples are: four pictures of 1024 px."""


class StyleGanPrior:
    """A StyleGAN2 generator to attack with (`micore.contracts.Prior`).

    The generator is put in eval mode and its parameters take no gradients; style codes and features do.

    Args:
        generator: on its device.
    """

    def __init__(self, generator: StyleGan2Generator) -> None:
        self.generator = generator.eval().requires_grad_(False)

    @property
    def latent_dim(self) -> int:
        """Length of z."""
        return self.generator.latent_dim

    @property
    def w_dim(self) -> int:
        """Length of one style code."""
        return self.generator.w_dim

    @property
    def num_ws(self) -> int:
        """How many layers take a style code."""
        return self.generator.num_ws

    @property
    def n_classes(self) -> int:
        """Classes of a conditional generator; 0 for an unconditional one."""
        return self.generator.n_classes

    @property
    def channels(self) -> int:
        """Colour channels of its pictures."""
        return self.generator.channels

    @property
    def size(self) -> int:
        """Height and width of its pictures."""
        return self.generator.size

    @property
    def mean_w(self) -> Tensor:
        """The mean style code (w_dim,), the centre of truncation."""
        return self.generator.mapping.w_avg

    @property
    def n_blocks(self) -> int:
        """Blocks of the synthesis: 4 px, 8 px, ... up to the picture's size."""
        return len(self.generator.synthesis.sizes)

    def map(self, latents: Tensor, labels: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Map z (B, latent_dim) to style codes (B, num_ws, w_dim).

        labels: (B,) for a conditional generator. psi: truncation, 1 for none and 0 for the mean; cutoff: only
        the first so many layers are truncated.
        """
        ws: Tensor = self.generator.mapping(latents, labels, psi, cutoff)
        return ws

    def render(self, ws: Tensor) -> Tensor:
        """Return pictures (B, channels, size, size) in [0, 1] of W (B, w_dim) or W+ (B, num_ws, w_dim).

        Values are clipped, gradients are not (`mi_image.stylegan2.to_canonical`).
        """
        return to_canonical(self.generator.synthesis(self._wide(ws)))

    def sample(self, n: int, rng: Random, *, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Draw n pictures; labels of a conditional generator are drawn uniformly."""
        with torch.no_grad():
            ws = self.sample_ws(n, rng, psi=psi, cutoff=cutoff)
            rows = max(1, min(_RENDERED_ROWS, _RENDERED_PIXELS // self.size**2))
            return torch.cat([self.render(part) for part in ws.split(rows)])

    @torch.no_grad()
    def sample_ws(self, n: int, rng: Random, *, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Draw n style codes (n, num_ws, w_dim)."""
        latents = rng.normal((n, self.latent_dim))
        if not self.n_classes:
            return self.map(latents, psi=psi, cutoff=cutoff)
        return self.map(latents, rng.integers(self.n_classes, (n,)), psi=psi, cutoff=cutoff)

    def p_space_box(
        self, n: int, rng: Random, *, psi: float = 1.0, cutoff: int | None = None, width: float = 1.0,
        plus: bool = False,
    ) -> Box:  # fmt: skip
        """Return the box of style codes within ``width`` deviations in P space, from n samples.

        Its shape is (w_dim,), that of the first layer's code, for searches in W; with ``plus`` it is
        (num_ws, w_dim), for searches in W+ where ``cutoff`` leaves later layers untruncated. Source: MIRROR
        (An et al., NDSS 2022): n 100,000, psi 0.7, cutoff 8, width 1.
        """
        layers = slice(None) if plus else 0
        parts = []
        while n > 0:
            parts.append(self.sample_ws(min(n, _MAPPED_ROWS), rng, psi=psi, cutoff=cutoff)[:, layers].clone())
            n -= _MAPPED_ROWS
        return p_space_box(torch.cat(parts), width=width)

    # Features: what IF-GMI searches after W ------------------------------------------------------------

    def start(self, ws: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Run the blocks before ``block`` (1 to n_blocks - 1) and return what enters it: features and picture.

        Shapes are those of `feature_shape` and `skip_shape`. Neither is detached.
        """
        return self.advance(None, None, ws, 0, block)

    def advance(
        self, features: Tensor | None, skip: Tensor | None, ws: Tensor, first: int, block: int
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks from ``first`` to before ``block`` on what enters the first (nothing enters block 0)."""
        self._require_block(block)
        for index in range(first, block):
            layer = self.generator.synthesis.blocks[index]
            features, skip = layer(features, skip, self._codes(ws, index, layer.n_convs))
        if features is None or skip is None:
            raise ValueError(f"StyleGanPrior: there is no block between {first} and {block}")
        return features, skip

    def finish(self, features: Tensor, skip: Tensor | None, ws: Tensor, block: int) -> Tensor:
        """Run ``block`` and those behind it: ``finish(*start(ws, i), ws, i)`` equals ``render(ws)``.

        skip: the picture of the blocks before; None drops it, as the released code of IF-GMI does.
        """
        self._require_block(block)
        return to_canonical(self.generator.synthesis(self._wide(ws), start=block, maps=features, image=skip))

    def feature_shape(self, block: int) -> tuple[int, int, int]:
        """(channels, r, r) of the features that enter ``block``."""
        self._require_block(block)
        before = self.generator.synthesis.blocks[block - 1]
        return before.conv1.weight.shape[0], before.size, before.size

    def skip_shape(self, block: int) -> tuple[int, int, int]:
        """(channels, r, r) of the picture that enters ``block``."""
        self._require_block(block)
        size = self.generator.synthesis.sizes[block - 1]
        return self.generator.channels, size, size

    def _codes(self, ws: Tensor, index: int, n_convs: int) -> Tensor:
        first = max(0, 2 * index - 1)
        return self._wide(ws)[:, first : first + n_convs + 1]

    def _wide(self, ws: Tensor) -> Tensor:
        return ws[:, None].expand(-1, self.num_ws, -1) if ws.ndim == 2 else ws

    def _require_block(self, block: int) -> None:
        if not 1 <= block < self.n_blocks:
            raise ValueError(f"StyleGanPrior: block={block}; features enter blocks 1 to {self.n_blocks - 1}")


def build_stylegan(arguments: Mapping[str, Any], weights: Mapping[str, Tensor], origin: str) -> StyleGan2Generator:
    """Build a generator and load its weights; parameters are copied.

    Draws initial parameters from the global generator: call it under ``runtime.seeded``.

    Raises: ModelError, naming ``origin``, when arguments or weights do not fit.
    """
    try:
        generator = StyleGan2Generator(**arguments)
        generator.load_state_dict(dict(weights), strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{origin} is no StyleGAN2 that this version builds: {first}") from error
    return generator


def restore_stylegan(state: Mapping[str, Any], runtime: Runtime) -> StyleGanPrior:
    """Build the prior that `train_stylegan` or a prior bundle gives, on the run's device.

    Raises: ModelError when the state is damaged.
    """
    with runtime.seeded("stylegan", "parameters"):
        generator = build_stylegan(state["arguments"], state["weights"], "the prior")
    prior = StyleGanPrior(runtime.place(generator))
    runtime.maybe_compile(prior.generator.synthesis)
    return prior
