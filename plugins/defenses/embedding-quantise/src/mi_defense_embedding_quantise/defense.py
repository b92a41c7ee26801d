"""Embeddings of few bits.

Scalar quantisation is what vector data bases do to save memory; as a defense it has no single source. With b bits each
value becomes the middle of one of ``2^b`` cells of equal width between ``-r`` and ``r`` (a uniform mid-rise quantiser:
no cell has 0 in its middle); what lies beyond becomes the outermost. One bit leaves the signs.

Threat model: an adversary who is given embeddings, or asks for them; one who has the weights is not hindered. The
answer is a fixed function of the embedding, so asking again tells nothing new, but asking samples that differ a little
does.

Fidelity notes
- r is a quantile of the absolute values of the embeddings of private samples, over all dimensions, and is kept with the
  target. It tells no adversary anything that the answers do not: they show its multiples.
- Lengths are left as they come out. To answer with the length that the embedding had would tell one number of each
  embedding in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from micore.contracts import Config, Defense, Fitting, Samples
from micore.errors import ModelError
from micore.kit.training import placed

FITTED = 4096
"""Private samples at most whose embeddings the range is fitted to, evenly spread."""
BATCH = 256


class EmbeddingQuantisationConfig(Config):
    """Settings of the defense."""

    bits: int = Field(4, ge=1, le=16, description="bits of each dimension; 1: signs; usual: 8, 4, 2, 1")
    covered: float = Field(
        0.999,
        gt=0,
        le=1,
        description="share of the private samples' values within the range; what lies beyond is clipped",
    )


class EmbeddingQuantisation(Defense):
    """Quantise each value of an embedding."""

    Config: ClassVar[type[Config]] = EmbeddingQuantisationConfig
    config: EmbeddingQuantisationConfig

    def __init__(self, config: EmbeddingQuantisationConfig) -> None:
        super().__init__(config)
        self._range: float | None = None

    def fit(self, fitting: Fitting) -> None:
        """Find the range.

        Raises: ModelError when all embeddings are 0.
        """
        n = len(fitting.reference)
        rows = torch.arange(0, n, -(-n // FITTED)).split(BATCH)
        samples = (placed(fitting.reference.take(part), fitting.runtime) for part in rows)
        found = torch.cat([fitting.answer(part).float().cpu() for part in samples]).abs().flatten()
        place = max(0, round(self.config.covered * len(found)) - 1)
        self._range = float(found.sort().values[place])
        if self._range == 0:
            raise ModelError(
                "defense 'embedding-quantise': nearly all values of the embeddings are 0", hint="a larger covered"
            )

    def state(self) -> Mapping[str, Tensor]:
        """Return the range."""
        return {} if self._range is None else {"range": torch.tensor([self._range])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the range back.

        Raises: ModelError when there is none.
        """
        found = state.get("range")
        if found is None or found.shape != (1,) or not bool(found > 0):
            raise ModelError("the stored state holds no range", hint="train the target again, or `mi defend` it")
        self._range = float(found)

    def facts(self) -> Mapping[str, Any]:
        """Return the range that was found; nothing before."""
        return {} if self._range is None else {"range": self._range, "bits": self.config.bits}

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Return quantised embeddings (N, d).

        Raises: ModelError before there is a range.
        """
        if self._range is None:
            raise ModelError("the quantisation has no range yet", hint="fit the defense, or load its state")
        return quantised(scores, self._range, self.config.bits)


def quantised(values: Tensor, limit: float, bits: int) -> Tensor:
    """Return the middles of the cells, of ``2^bits`` between -limit and limit, in which values (any shape) lie."""
    half = 1 << (bits - 1)
    step = limit / half
    return ((values / step).floor().clamp(-half, half - 1) + 0.5) * step
