"""Families of distributions q over latents that start at N(0, I), and many members of one family at a time.

A family is a network that turns noise ~ N(0, I) into latents ~ q and knows how much denser q is there than N(0, I). The
members (one per class, and per layer of a StyleGAN) are the same network with other parameters: a matrix with one row
of parameters per member, through which `torch.func.vmap` runs all of them in one pass.

Sources: Wang et al. (NeurIPS 2021), authors' code; Kingma & Dhariwal, "Glow" (NeurIPS 2018); Dinh et al., "NICE"
(arXiv:1410.8516) and "Real NVP" (arXiv:1605.08803). The transformations are zuko's.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from zuko.flows.coupling import GeneralCouplingTransform  # type: ignore[import-untyped]
from zuko.flows.gaussianization import ElementWiseTransform  # type: ignore[import-untyped]
from zuko.lazy import LazyComposedTransform, LazyTransform, UnconditionalTransform  # type: ignore[import-untyped]
from zuko.nn import MLP  # type: ignore[import-untyped]
from zuko.transforms import AdditiveTransform, CouplingTransform, PermutationTransform  # type: ignore[import-untyped]

__all__ = ["Coupling", "FullGaussian", "Members", "MultiScaleFlow"]

Coupling = Literal["additive", "affine"]
_NONE = torch.Size()


class FullGaussian(nn.Module):
    """A Gaussian of any covariance: z = mean + L noise, L lower triangular with a positive diagonal."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(latent_dim))
        self.lower = nn.Parameter(torch.zeros(latent_dim, latent_dim))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Map noise (n, d) to latents (n, d) and the log determinant of the map's Jacobian, (n,)."""
        latents = self.mean + noise * self.log_scales.exp() + noise @ self.lower.tril(-1).T
        return latents, self.log_scales.sum().expand(len(noise))


class MultiScaleFlow(nn.Module):
    """Glow for vectors: levels of steps; the first level to be inverted works on a part, each later one on twice that.

    A step is a coupling, a fixed random permutation, and a scale and shift of every dimension. Between two levels the
    other half of the dimensions is drawn from a Gaussian whose mean and scales depend on the first half.

    levels: 1 keeps all dimensions together. hidden: width of the two hidden layers of every network. Draws initial
    parameters and permutations from the global generator.
    """

    def __init__(
        self, latent_dim: int, *, levels: int = 1, steps: int = 6, hidden: int = 64, coupling: Coupling = "additive"
    ) -> None:
        super().__init__()
        self.sizes = level_sizes(latent_dim, levels)
        self.levels = nn.ModuleList(_steps(size, steps, hidden, coupling) for size in self.sizes)
        self.splits = nn.ModuleList(
            _starting_at_zero(MLP(kept, 2 * (size - kept), (hidden, hidden), nn.ELU))
            for kept, size in zip(self.sizes, self.sizes[1:], strict=False)
        )

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Map noise (n, d) to latents (n, d) and the log determinant of the map's Jacobian, (n,)."""
        latents, log_det = self.levels[0]().call_and_ladj(noise[:, : self.sizes[0]])
        for index, (split, level) in enumerate(zip(self.splits, self.levels[1:], strict=True)):
            means, log_scales = split(latents).chunk(2, dim=1)
            joined = means + log_scales.exp() * noise[:, self.sizes[index] : self.sizes[index + 1]]
            latents, more = level().call_and_ladj(torch.cat([latents, joined], dim=1))
            log_det = log_det + log_scales.sum(dim=1) + more
        return latents, log_det


def level_sizes(latent_dim: int, levels: int) -> list[int]:
    """Return how many dimensions each level works on, the smallest first: 512 in 3 levels are 128, 256, 512."""
    sizes = [latent_dim]
    while len(sizes) < levels:
        sizes.insert(0, sizes[0] - sizes[0] // 2)
    return sizes


def _steps(features: int, steps: int, hidden: int, coupling: Coupling) -> LazyComposedTransform:
    return LazyComposedTransform(
        *(
            part
            for _ in range(steps)
            for part in (
                _coupling(features, hidden, coupling),
                UnconditionalTransform(PermutationTransform, torch.randperm(features), buffer=True),
                _scale_and_shift(features),
            )
        )
    )


class _HalvesCoupling(GeneralCouplingTransform):  # type: ignore[misc]
    """A coupling whose first half stays; it need not look for the mask's indices, which waits for the device."""

    def forward(self, c: Tensor | None = None) -> CouplingTransform:
        """Return the transformation."""
        return _Halves(partial(self.meta, c), kept=self.hyper.in_features)


class _Halves(CouplingTransform):  # type: ignore[misc]
    def __init__(self, meta: Any, kept: int) -> None:
        super(CouplingTransform, self).__init__()
        self.meta, self.kept = meta, kept

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., : self.kept], x[..., self.kept :]

    def merge(self, x_a: Tensor, x_b: Tensor, shape: torch.Size) -> Tensor:
        return torch.cat([x_a, x_b], dim=-1)


def _coupling(features: int, hidden: int, coupling: Coupling) -> LazyTransform:
    kind = {"univariate": AdditiveTransform, "shapes": [_NONE]} if coupling == "additive" else {}
    mask = torch.arange(features) < features - features // 2
    step = _HalvesCoupling(features, mask=mask, hidden_features=(hidden, hidden), activation=nn.ELU, **kind)
    _starting_at_zero(step.hyper)
    return step


def _scale_and_shift(features: int) -> LazyTransform:
    step = ElementWiseTransform(features)
    for parameter in step.parameters():
        nn.init.zeros_(parameter)
    return step


def _starting_at_zero(network: MLP) -> MLP:
    """Make a network's last layer zero, so that what it steers begins as the identity."""
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network


class Members:
    """Many members of one family.

    network: the family, on its device; its own parameters are where every member starts.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval().requires_grad_(False)
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self._draw_all = vmap(self._draw)

    def start(self) -> Tensor:
        """Return the parameters (P,) of a member that equals N(0, I)."""
        return torch.cat([parameter.flatten() for parameter in self._network.parameters()])

    def draw(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draw from members with these parameters (B, P), for noise (B, n, d) ~ N(0, I).

        Returns latents (B, n, d) and log q(z) - log N(z; 0, I), (B, n), whose mean estimates KL(q || N(0, I)) in nats.
        """
        with torch.autocast(parameters.device.type, enabled=False):
            latents, log_det = self._draw_all(parameters, noise)
        return latents, (latents.square().sum(dim=2) - noise.square().sum(dim=2)) / 2 - log_det

    def _draw(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        pieces = parameters.split(self._sizes)
        named = {name: piece.view(shape) for piece, (name, shape) in zip(pieces, self._shapes.items(), strict=True)}
        drawn: tuple[Tensor, Tensor] = functional_call(self._network, named, (noise,))
        return drawn
