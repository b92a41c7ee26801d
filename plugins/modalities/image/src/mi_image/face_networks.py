"""Face-recognition networks of the 64 px line of model-inversion papers: IR-50 and IR-152.

They are the "face.evoLVe" and "IR152" targets of GMI (Zhang et al., CVPR 2020) and of the papers that compare
with it (KED-MI, LOMMA, PLG-MI, BREP-MI, RLB-MI, LOKT); IR-50 at 112 px is the backbone of their evaluator.
The block is the "improved residual" unit of ArcFace (Deng et al., CVPR 2019, section 3.1). Contract and
normalisation: see ``classifiers``.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from torch import Tensor, nn

from mi_image.classifiers import ImageClassifier

__all__ = ["ImprovedResidualBlock", "Ir50", "Ir152"]


class ImprovedResidualBlock(nn.Module):
    """BN, Conv3x3, PReLU, Conv3x3 (strided), BN, added to a shortcut (ArcFace, CVPR 2019, section 3.1).

    The shortcut only subsamples where the width stays, and is Conv1x1 with BN where it changes. Maps (B,
    inputs, n, n) become (B, outputs, ceil(n / stride), ceil(n / stride)).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, inputs, n, n) to (B, outputs, ceil(n / stride), ceil(n / stride))."""
        total: Tensor = self.residual(maps) + self.shortcut(maps)
        return total


class _IrNetwork(ImageClassifier, ABC):
    """Stem, four stages of improved residual blocks that halve the map each, and an embedding layer.

    Args:
        n_classes, channels, size: see ``ImageClassifier``.
        width: channels of the stem and the first stage; stages have 1, 2, 4 and 8 times as many.
        embedding: length of the face embedding, which is what ``features`` returns.
        dropout: probability of dropping a value of the last map while training.
    """

    fixed_size: ClassVar[bool] = True
    depths: ClassVar[tuple[int, int, int, int]]
    """Number of blocks per stage."""

    def __init__(
        self,
        n_classes: int,
        channels: int = 3,
        size: int = 64,
        width: int = 64,
        embedding: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(n_classes, channels, size)
        stem_conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem_conv, nn.BatchNorm2d(width), nn.PReLU(width))
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.stages = nn.Sequential(*map(self._stage, widths[:-1], widths[1:], self.depths))
        side = -(-size // 2 ** len(self.depths))  # every stage halves, rounding up: 4 at 64 px, 7 at 112 px
        self.embed = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, embedding),
            nn.BatchNorm1d(embedding),
        )
        self.n_features = embedding
        self.head = nn.Linear(embedding, n_classes)
        self._init_weights()

    @staticmethod
    def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
        rest = (ImprovedResidualBlock(outputs, outputs, 1) for _ in range(depth - 1))
        return nn.Sequential(ImprovedResidualBlock(inputs, outputs, 2), *rest)

    def _init_weights(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def extract(self, images: Tensor) -> Tensor:
        """Embed the faces: (B, embedding)."""
        embedded: Tensor = self.embed(self.stages(self.stem(images)))
        return embedded


class Ir50(_IrNetwork):
    """IR-50: 3, 4, 14, 3 improved residual blocks. The "face.evoLVe" target at 64 px, evaluator at 112 px.

    ``Ir50(n_classes, channels=3, size=64, width=64, embedding=512, dropout=0.5)``; features (B, embedding).
    """

    depths: ClassVar[tuple[int, int, int, int]] = (3, 4, 14, 3)


class Ir152(_IrNetwork):
    """IR-152: 3, 8, 36 and 3 improved residual blocks. The "IR152" target at 64 px.

    ``Ir152(n_classes, channels=3, size=64, width=64, embedding=512, dropout=0.5)``; features (B, embedding).
    """

    depths: ClassVar[tuple[int, int, int, int]] = (3, 8, 36, 3)
