"""Discriminator of T-ACGAN, the target-assisted GAN of LOKT (Nguyen et al., NeurIPS 2023, section 4).

T-ACGAN pairs it with the generator of PLG-MI (``mi_image.conditional_gan.ConditionalGenerator``). Its class
head learns from the target's hard labels of generated images, and so becomes a surrogate of a target that
gives labels only.

Fidelity notes (paper / authors' code / here)
- Real/fake head: a sigmoid trained with binary cross-entropy. Here the logit is returned, for
  ``binary_cross_entropy_with_logits`` is the same loss and does not overflow.
- Heads: the authors normalise the trunk spectrally and neither head; kept.
- Initialisation: Xavier in the trunk, as in PLG-MI's critic; the heads likewise.
- Sizes: see ``mi_image.conditional_gan``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mi_image.conditional_gan import DownBlock, block_widths

__all__ = ["TacganDiscriminator"]


class TacganDiscriminator(nn.Module):
    """Judge images (B, channels, size, size) in [0, 1]: real or generated, and of which class.

    Spectrally normalised residual trunk, features summed over the last map (B, 16 * base at 64 px), two
    linear heads. There
    is no batch normalisation, but in training mode every forward pass moves the estimates of the spectral
    norms: run it in ``eval()`` when it serves as a surrogate.

    Args:
        n_classes: classes of the target.
        size: height and width in pixels, 4 * 2**n.
        channels: colour channels of the images.
        base: channels of the first block (64 in the paper).

    Raises:
        MiError: another size (from ``block_widths``).
        ValueError: in ``forward``, images of another shape.
    """

    def __init__(self, n_classes: int, size: int = 64, channels: int = 3, base: int = 64) -> None:
        super().__init__()
        widths = block_widths(size, base)[::-1]
        self.n_classes, self.size, self.channels = n_classes, size, channels
        self.n_features = widths[-1]
        first = DownBlock(channels, widths[0], first=True)
        self.blocks = nn.Sequential(first, *map(DownBlock, widths[:-1], widths[1:]))
        self.realness = nn.Linear(self.n_features, 1)
        self.head = nn.Linear(self.n_features, n_classes)
        for linear in (self.realness, self.head):
            nn.init.xavier_uniform_(linear.weight)

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, n_features), float32 and not negative."""
        if tuple(images.shape[1:]) != (self.channels, self.size, self.size):
            raise ValueError(
                f"TacganDiscriminator: images of shape {tuple(images.shape)}; expected "
                f"(B, {self.channels}, {self.size}, {self.size}): resize them, or build it for their size"
            )
        return functional.relu(self.blocks(images)).float().sum(dim=(2, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of being real (B,) and the class logits (B, n_classes)."""
        features = self.features(images)
        return self.realness(features).squeeze(1), self.head(features)
