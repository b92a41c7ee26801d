"""Gaussian noise on embeddings.

Morris, Kuleshov, Shmatikov, Rush: "Text Embeddings Reveal (Almost) As Much As Text", EMNLP 2023 (arXiv:2310.06816),
section 7, add ``lambda N(0, I)`` to embeddings of unit length and measure what retrieval and inversion lose.

Threat model: an adversary who is given embeddings, or asks for them as often as the budget allows; one who has the
weights is not hindered. An encoder answers with embeddings; a graph network answers with classes, which stay as they
are, and gives the hidden features of nodes by its service ``embed``. With d dimensions and noise of sigma lengths in
each, the cosine between an embedding and what is given is about ``1 / sqrt(1 + d sigma^2)``: 0.98 for d = 384 and sigma
= 0.01.

Fidelity notes (paper / here)
- The paper's embeddings have length 1 and its lambda is an absolute deviation; here sigma is in lengths of the
  embedding, which is the same for those and keeps its meaning for others.
- The paper draws fresh noise, which whoever may ask again averages away. Here it is fixed by a secret key and the
  sample; ``keyed=False`` is the fresh kind, for comparison.
- This is no mechanism of local differential privacy: no sensitivity is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from micore.answers import HasServices, is_classifier
from micore.contracts import Config, Defense, Fitting, Samples
from micore.errors import ModelError
from micore.kit.keyed_noise import KeyedNoise, gaussian
from micore.kit.training import placed
from micore.utility import NEIGHBOURS, neighbour_overlap

EMBED = "embed"
"""The service of a target that is no encoder which gives embeddings."""

MOST_COMPARED = 2000
"""Samples of the reference among which neighbours are looked for."""


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
        self._answers_classes = False
        self._overlap: float | None = None

    def fit(self, fitting: Fitting) -> None:
        """Draw the key; of a target that is no encoder, look how many neighbours among its embeddings stay.

        Raises: ModelError for a target that gives no embeddings.
        """
        self._noise.draw_key()
        self._answers_classes = is_classifier(fitting.module)
        if self._answers_classes:
            self._overlap = self._kept_neighbours(fitting)

    @torch.no_grad()
    def _kept_neighbours(self, fitting: Fitting) -> float | None:
        """Return the share of nearest neighbours that stay among the reference's embeddings; None: too few of them."""
        module, n = fitting.module, min(len(fitting.reference), MOST_COMPARED)
        if not isinstance(module, HasServices) or EMBED not in module.services:
            raise ModelError(f"embedding-noise needs a target that gives embeddings, not a {type(module).__name__}")
        if n <= NEIGHBOURS:
            return None
        samples = placed(fitting.reference.take(range(n)), fitting.runtime)
        raw: Tensor = module.serve(EMBED, fitting.adapter(samples).to(fitting.runtime.device))
        return neighbour_overlap(raw, self._noisy(raw, samples))

    def state(self) -> Mapping[str, Tensor]:
        """Return the key, and whether answers are classes."""
        kept = self._noise.state()
        return {**kept, "answers_classes": torch.tensor([True])} if kept and self._answers_classes else kept

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take them back.

        Raises: ModelError when there is no key.
        """
        self._noise.load_state(state)
        self._answers_classes = "answers_classes" in state

    def facts(self) -> Mapping[str, Any]:
        """Return the share of neighbours that stay among the hidden features of a target that is no encoder."""
        return {} if self._overlap is None else {"embed_neighbour_overlap": round(self._overlap, 4)}

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return noisy embeddings (N, d), or classes as they are."""
        return scores if self._answers_classes else self._noisy(scores, inputs)

    def adapt_service(self, service: str, results: Any, inputs: Samples) -> Any:
        """Return noisy hidden features (N, d), from the clean ones at every query; other services stay."""
        return self._noisy(results, inputs) if self._answers_classes and service == EMBED else results

    def _noisy(self, embeddings: Tensor, inputs: Samples) -> Tensor:
        drawn = gaussian(self._noise.uniforms(inputs, embeddings, embeddings.shape[1])).to(embeddings.dtype)
        lengths: Tensor = vector_norm(embeddings, dim=1, keepdim=True)
        noisy = embeddings + self.config.sigma * lengths * drawn
        if not self.config.renormalise:
            return noisy
        found: Tensor = vector_norm(noisy, dim=1, keepdim=True)
        return noisy * lengths / found.masked_fill(found == 0, 1)
