"""Gaussian noise on embeddings.

Morris, Kuleshov, Shmatikov, Rush: "Text Embeddings Reveal (Almost) As Much As Text", EMNLP 2023 (arXiv:2310.06816),
section 7, add ``lambda N(0, I)`` to embeddings of unit length and measure what retrieval and inversion lose.

Threat model: an adversary who is given embeddings, or asks for them as often as the budget allows; one who has the
weights is not hindered. With d dimensions and noise of sigma lengths in each, the cosine between an embedding and
what is answered is about ``1 / sqrt(1 + d sigma^2)``: 0.98 for d = 384 and sigma = 0.01.

Fidelity notes (paper / here)
- The paper's embeddings have length 1 and its lambda is an absolute deviation; here sigma is in lengths of the
  embedding, which is the same for those and keeps its meaning for others.
- The paper draws fresh noise, which whoever may ask again averages away. Here it is fixed by a secret key and the
  sample; ``keyed=False`` is the fresh kind, for comparison.
- This is no mechanism of local differential privacy: no sensitivity is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from micore.contracts import Config, Defense, Fitting, Samples
from micore.kit.keyed_noise import KeyedNoise, gaussian


class EmbeddingNoiseConfig(Config):
    """Settings of the defense."""

    sigma: float = Field(
        0.01, gt=0, le=100, description="standard deviation of the noise of each dimension, in lengths of the embedding"
        "; paper: 0.001 to 1 on embeddings of length 1",
    )  # fmt: skip
    renormalise: bool = Field(True, description="answer with the length that the embedding had without noise")
    keyed: bool = Field(
        True, description="the same noise whenever a sample is asked; false: new at each query, for comparison"
    )


class EmbeddingNoise(Defense):
    """Add noise to each embedding."""

    Config: ClassVar[type[Config]] = EmbeddingNoiseConfig
    config: EmbeddingNoiseConfig

    def __init__(self, config: EmbeddingNoiseConfig) -> None:
        super().__init__(config)
        self._noise = KeyedNoise(fresh=not config.keyed)

    def fit(self, fitting: Fitting) -> None:
        """Draw the key."""
        self._noise.draw_key()

    def state(self) -> Mapping[str, Tensor]:
        """Return the key."""
        return self._noise.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the key back.

        Raises: ModelError when there is none.
        """
        self._noise.load_state(state)

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return noisy embeddings (N, d)."""
        drawn = gaussian(self._noise.uniforms(inputs, scores, scores.shape[1])).to(scores.dtype)
        lengths: Tensor = vector_norm(scores, dim=1, keepdim=True)
        noisy = scores + self.config.sigma * lengths * drawn
        if not self.config.renormalise:
            return noisy
        found: Tensor = vector_norm(noisy, dim=1, keepdim=True)
        return noisy * lengths / found.masked_fill(found == 0, 1)
