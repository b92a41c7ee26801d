"""DCGAN generator and the two critics of the GMI line of attacks, for squares of 8 to 256 px.

The 64 px networks are those of GMI (Zhang et al., CVPR 2020) and KED-MI (Chen et al., ICCV 2021), which
LOMMA, BREP-MI and RLB-MI reuse; 32 px drops the widest stage (GMI's MNIST variant), 16 and 8 px the next ones,
128 and 256 px add stages of the narrowest width.
All work in the canonical range: images are in [0, 1]. The generator holds batch normalisation: train it with
batch statistics, attack with ``eval()``, or a picture depends on the others of its batch. Weights keep
torch's default initialisation, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DcganGenerator", "KedCritic", "MinibatchDiscrimination", "WganCritic"]

_BASE = 4  # height and width of the smallest map


def _doublings(size: int, name: str) -> int:
    """Return how many doublings lead from 4 px to ``size``; raise ValueError for another size."""
    supported = {8: 1, 16: 2, 32: 3, 64: 4, 128: 5, 256: 6}
    if size not in supported:
        raise ValueError(f"{name}: size={size}; it exists for {sorted(supported)} px: resize the images to one of them")
    return supported[size]


def _check_images(images: Tensor, channels: int, size: int, name: str) -> None:
    if tuple(images.shape[1:]) != (channels, size, size):
        raise ValueError(
            f"{name}: images of shape {tuple(images.shape)}; expected "
            f"(B, {channels}, {size}, {size}): resize them, or build the network with their size and channels"
        )


class DcganGenerator(nn.Module):
    """Map latents z ~ N(0, I) of shape (B, latent_dim) to images (B, channels, size, size) in [0, 1].

    Linear to 4x4 maps with BN1d and ReLU, then transposed 5x5 convolutions of stride 2 with BN and ReLU; the
    last one has a bias and a sigmoid instead (Radford et al., ICLR 2016, with the kernel and sigmoid of GMI's
    code).

    Args:
        latent_dim: length of z (100 in the papers).
        size: 8, 16, 32, 64, 128 or 256 px.
        channels: colour channels of the images.
        width: channels of the last hidden stage; the first has 8 times as many (4, 2, 1 times at 32, 16,
            8 px).

    Raises:
        ValueError: another size, or (in ``forward``) latents of another shape.
    """

    def __init__(self, latent_dim: int = 100, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        n = _doublings(size, "DcganGenerator")
        self.latent_dim, self.size, self.channels = latent_dim, size, channels
        widths = [width * 2 ** max(0, min(3, n - 1) - i) for i in range(n)]
        flat = widths[0] * _BASE**2
        self.project = nn.Sequential(nn.Linear(latent_dim, flat, bias=False), nn.BatchNorm1d(flat), nn.ReLU())
        self.reshape = nn.Unflatten(1, (widths[0], _BASE, _BASE))
        self.up = nn.Sequential(*map(self._stage, widths[:-1], widths[1:]))
        self.to_image = nn.ConvTranspose2d(widths[-1], channels, 5, stride=2, padding=2, output_padding=1)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        conv = nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images (B, channels, size, size) in [0, 1]; ``labels`` are ignored."""
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(
                f"DcganGenerator: latents of shape {tuple(latents.shape)}; expected (B, {self.latent_dim})"
            )
        return torch.sigmoid(self.to_image(self.up(self.reshape(self.project(latents)))))


class WganCritic(nn.Module):
    """Critic of GMI's Wasserstein GAN with gradient penalty: images in [0, 1] to one unbounded score each.

    5x5 convolutions of stride 2 with leaky ReLU (0.2), instance normalisation (affine) from the second on,
    then one 4x4 convolution. Instance instead of batch normalisation, because the penalty of Gulrajani et al.
    (NeurIPS 2017, section 4) needs a score that depends on its own image only.

    Args:
        size: 8, 16, 32, 64, 128 or 256 px.
        channels: colour channels of the images.
        width: channels of the first stage; the last has 8 times as many (4, 2, 1 times at 32, 16, 8 px).

    Raises:
        ValueError: another size, or (in ``forward``) images of another shape.
    """

    def __init__(self, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        n = _doublings(size, "WganCritic")
        self.size, self.channels = size, channels
        widths = [width] * max(0, n - 4) + [width * 2**i for i in range(min(n, 4))]
        first = nn.Sequential(nn.Conv2d(channels, widths[0], 5, stride=2, padding=2), nn.LeakyReLU(0.2))
        self.down = nn.Sequential(first, *map(_down5, widths[:-1], widths[1:]))
        self.score = nn.Conv2d(widths[-1], 1, _BASE)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (B,); higher means more like the training images."""
        _check_images(images, self.channels, self.size, "WganCritic")
        scores: Tensor = self.score(self.down(images)).flatten()
        return scores


def _down5(inputs: int, outputs: int) -> nn.Sequential:
    return _down(nn.Conv2d(inputs, outputs, 5, stride=2, padding=2))


def _down(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.InstanceNorm2d(conv.out_channels, affine=True), nn.LeakyReLU(0.2))


class MinibatchDiscrimination(nn.Module):
    """Tell each sample how close the others of its batch are (Salimans et al., NeurIPS 2016, section 3.2).

    With M_i = f_i T of shape (n_kernels, kernel_dim), o(i)_b = sum over j != i of exp(-||M_i,b - M_j,b||_1).
    Needs B^2 * n_kernels * kernel_dim numbers of memory: 52 MB in float32 for a batch of 64.

    Args:
        n_features: length of the features f.
        n_kernels: B in the paper's notation, values added per sample.
        kernel_dim: C in the paper's notation, dimensions over which distances are taken.
    """

    def __init__(self, n_features: int, n_kernels: int = 64, kernel_dim: int = 50) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(n_features, n_kernels, kernel_dim))

    def forward(self, features: Tensor) -> Tensor:
        """Append the closeness to the other samples: (B, n_features) to (B, n_features + n_kernels)."""
        projected = torch.einsum("bf,fkd->bkd", features, self.kernels)
        distances = (projected[:, None] - projected[None]).abs().sum(-1)  # (B, B, n_kernels)
        closeness = torch.exp(-distances).sum(1) - 1.0  # a sample's distance to itself is 0, and exp(0) = 1
        return torch.cat([features, closeness], dim=1)


class KedCritic(nn.Module):
    """Target-specific critic of KED-MI (Chen et al., ICCV 2021, section 3.1): images to K-way logits.

    5x5 convolutions of stride 2, the last one 3x3, each with instance normalisation (affine) and leaky ReLU
    (0.2); minibatch discrimination; a linear layer. Realness is read off the logits as their log-sum-exp
    (Salimans et al., NeurIPS 2016, section 5). A score depends on the whole batch through the minibatch
    discrimination, by design.

    Args:
        n_classes: classes of the target that the critic imitates.
        size: 8, 16, 32, 64, 128 or 256 px.
        channels: colour channels of the images.
        width: channels of the first stage; from the third on there are 4 times as many (4096 features in the
            paper; 2048 at 16 px).
        n_kernels, kernel_dim: see ``MinibatchDiscrimination``.

    Raises:
        ValueError: another size, or (in ``forward``) images of another shape.
    """

    def __init__(
        self,
        n_classes: int,
        size: int = 64,
        channels: int = 3,
        width: int = 64,
        n_kernels: int = 64,
        kernel_dim: int = 50,
    ) -> None:
        super().__init__()
        n = _doublings(size, "KedCritic")
        self.n_classes, self.size, self.channels = n_classes, size, channels
        widths = [channels, *(width * 2 ** min(i, 2) for i in range(n))]
        last = _down(nn.Conv2d(widths[-2], widths[-1], 3, stride=2, padding=1))
        self.down = nn.Sequential(*map(_down5, widths[:-2], widths[1:-1]), last)
        self.n_features = widths[-1] * _BASE**2
        self.discrimination = MinibatchDiscrimination(self.n_features, n_kernels, kernel_dim)
        self.head = nn.Linear(self.n_features + n_kernels, n_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, n_features), for feature matching, and logits (B, n_classes)."""
        _check_images(images, self.channels, self.size, "KedCritic")
        features = self.down(images).flatten(1)
        return features, self.head(self.discrimination(features))
