"""StyleGAN2-ADA generator (Karras et al., CVPR and NeurIPS 2020): prior of PPA, MIRROR, IF-GMI, C2F and VMI.

Written in plain torch operations with the parameter names of the official PyTorch release: the ``state_dict``
of an official ``G_ema``, saved as safetensors, loads with ``load_state_dict(..., strict=True)``.

Fidelity notes:

- Official: inputs of the deep blocks may run in float16. Here: the dtype of the weights, or torch.autocast.
- Official: modulation scales the weights, one grouped convolution per batch. Here: it scales the maps (the
  same sum).
- Official: the picture is in about [-1, 1] and is clipped when written to a file. Here: it leaves in the
  canonical range, see ``to_canonical``.
- Official: ``torgb`` clamps at +-conv_clamp, and so do the convolutions; kept, for released networks were
  trained with 256.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_image.stylegan2_layers import EqualizedLinear, NoiseMode, SynthesisBlock

__all__ = ["MappingNetwork", "StyleGan2Generator", "SynthesisNetwork", "to_canonical"]


def to_canonical(raw: Tensor) -> Tensor:
    """Convert raw pictures of about [-1, 1] to the canonical range [0, 1]: the one place where it happens.

    Values outside are clipped, as in a picture's file, but the gradient is that of (raw + 1) / 2 everywhere,
    as in attacks
    that optimise unclipped pictures: a saturated pixel can find its way back.
    """
    scaled = (raw + 1) / 2
    return scaled.detach().clamp(0, 1) + (scaled - scaled.detach())


def _normalise(values: Tensor) -> Tensor:
    """Divide each row by its root mean square (normalisation of the second moment)."""
    return values * (values.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """Map z ~ N(0, I), and a class where there is one, to the style code w.

    Args:
        latent_dim: length of z.
        w_dim: length of w.
        n_classes: number of classes; 0 for an unconditional generator.
        num_ws: how many layers take a style code.
        n_layers: fully connected layers (8 in the paper; 2 in the release's "auto" configuration).
        w_avg_beta: decay of the running mean of w, which is tracked in training mode only.
    """

    w_avg: Tensor

    def __init__(
        self,
        latent_dim: int,
        w_dim: int,
        n_classes: int,
        num_ws: int,
        n_layers: int = 8,
        w_avg_beta: float = 0.995,
    ) -> None:
        super().__init__()
        self.latent_dim, self.n_classes, self.num_ws = latent_dim, n_classes, num_ws
        self.n_layers, self.w_avg_beta = n_layers, w_avg_beta
        inputs = latent_dim
        if n_classes:
            self.embed = EqualizedLinear(n_classes, w_dim)
            inputs += w_dim
        for i in range(n_layers):
            self.add_module(f"fc{i}", EqualizedLinear(inputs, w_dim, lr_multiplier=0.01, activate=True))
            inputs = w_dim
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Return style codes (B, num_ws, w_dim), the same for every layer up to truncation.

        Args:
            latents: z, (B, latent_dim).
            labels: integer classes (B,); needed by a conditional generator, refused by an unconditional one.
            truncation_psi: w becomes w_avg + psi (w - w_avg); 1 leaves it as it is, 0 gives the mean.
            truncation_cutoff: only the first so many layers are truncated; None for all.
        """
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(
                f"StyleGan2 mapping: latents of shape {tuple(latents.shape)}; expected (B, {self.latent_dim})"
            )
        w = self._conditioned(_normalise(latents), labels)
        for i in range(self.n_layers):
            w = self.get_submodule(f"fc{i}")(w)
        if self.training:
            with torch.no_grad():
                self.w_avg.copy_(w.mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1:
            return ws
        truncated = torch.lerp(self.w_avg.to(ws.dtype), ws[:, :truncation_cutoff], truncation_psi)
        return truncated if truncation_cutoff is None else torch.cat([truncated, ws[:, truncation_cutoff:]], dim=1)

    def _conditioned(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        if not self.n_classes:
            if labels is not None:
                raise ValueError("StyleGan2 mapping: this generator is unconditional; call it without labels")
            return latents
        if labels is None:
            raise ValueError(f"StyleGan2 mapping: this generator is conditional; give labels below {self.n_classes}")
        one_hot = functional.one_hot(labels, self.n_classes).to(latents.dtype)
        return torch.cat([latents, _normalise(self.embed(one_hot))], dim=1)


class SynthesisNetwork(nn.Module):
    """Render style codes: blocks ``b4``, ``b8``, ... ``b{size}``, each adding to the picture.

    Args:
        w_dim: length of a style code.
        size: height and width of the picture, a power of two from 8.
        channels: colour channels.
        channel_base, channel_max: a block of r px has min(channel_base / r, channel_max) channels.
        conv_clamp: bound on what layers give (256 in released networks); None for none.
    """

    def __init__(
        self,
        w_dim: int,
        size: int,
        channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
    ) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"StyleGan2: size={size}; choose a power of two from 8 and resize the pictures afterwards")
        self.sizes = [2**i for i in range(2, size.bit_length())]
        self.w_dim = w_dim
        inputs = 0
        for r in self.sizes:
            outputs = min(channel_base // r, channel_max)
            self.add_module(f"b{r}", SynthesisBlock(inputs, outputs, w_dim, r, channels, conv_clamp))
            inputs = outputs
        self.num_ws = 2 * len(self.sizes)  # convolutions (1 in the first block, 2 in the others) and the last torgb

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """The blocks from 4 px up; block i takes style codes 2i-1, 2i, 2i+1 (block 0: codes 0 and 1)."""
        return [block for block in self.children() if isinstance(block, SynthesisBlock)]

    def forward(
        self,
        ws: Tensor,
        noise: NoiseMode = "const",
        rng: torch.Generator | None = None,
        start: int = 0,
        maps: Tensor | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """Return raw pictures (B, channels, size, size) in about [-1, 1].

        Args:
            ws: style codes (B, num_ws, w_dim).
            noise: "const" (the learned buffers: deterministic), "random" (drawn with ``rng``) or "none".
            rng: generator of the random noise.
            start: index of the first block to run.
            maps: what block start-1 returned; needed for a start above 0.
            image: the picture that block start-1 returned, the skip of the ones before.
        """
        if tuple(ws.shape[1:]) != (self.num_ws, self.w_dim):
            raise ValueError(
                f"StyleGan2 synthesis: ws of shape {tuple(ws.shape)}; expected (B, {self.num_ws}, {self.w_dim})"
            )
        if not 0 <= start < len(self.sizes):
            raise ValueError(f"StyleGan2 synthesis: start={start}; give 0 to {len(self.sizes) - 1}")
        for i, block in enumerate(self.blocks[start:], start):
            first = max(0, 2 * i - 1)
            maps, image = block(maps, image, ws[:, first : first + block.n_convs + 1], noise, rng)
        if image is None:
            raise ValueError("StyleGan2 synthesis: there is no block to run")
        return image


class StyleGan2Generator(nn.Module):
    """StyleGAN2-ADA: latents z ~ N(0, I) of shape (B, latent_dim), or style codes, to images in [0, 1].

    There is no batch normalisation, but in training mode the running mean of w moves: run it in ``eval()``
    when attacking.

    Args:
        latent_dim: length of z.
        size: height and width, a power of two from 8.
        channels: colour channels.
        w_dim: length of a style code.
        n_classes: classes of a conditional generator; 0 for none.
        n_mapping_layers: 8 in the paper, 2 in the release's "auto" configuration.
        channel_base, channel_max, conv_clamp: see ``SynthesisNetwork``. Released networks up to 256 px have
            channel_base 16384.

    Raises:
        ValueError: a size that is not a power of two; latents, style codes or labels that do not fit.
    """

    def __init__(
        self,
        latent_dim: int = 512,
        size: int = 64,
        channels: int = 3,
        w_dim: int = 512,
        n_classes: int = 0,
        n_mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
    ) -> None:
        super().__init__()
        self.latent_dim, self.w_dim, self.n_classes = latent_dim, w_dim, n_classes
        self.size, self.channels = size, channels
        self.synthesis = SynthesisNetwork(w_dim, size, channels, channel_base, channel_max, conv_clamp)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(latent_dim, w_dim, n_classes, self.num_ws, n_mapping_layers)

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Return images (B, channels, size, size) in [0, 1]; arguments as in the two networks."""
        return self.render(self.mapping(latents, labels, truncation_psi, truncation_cutoff), noise, rng)

    def render(self, ws: Tensor, noise: NoiseMode = "const", rng: torch.Generator | None = None) -> Tensor:
        """Return images in [0, 1] of style codes: W (B, w_dim) or W+ (B, num_ws, w_dim)."""
        if ws.ndim == 2:
            ws = ws[:, None].expand(-1, self.num_ws, -1)
        return to_canonical(self.synthesis(ws, noise, rng))
