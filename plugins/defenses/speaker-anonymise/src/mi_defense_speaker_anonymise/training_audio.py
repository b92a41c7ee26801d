"""The McAdams coefficient as a defense of what a target learns: see `mcadams`.

Threat model: an adversary with any access to a target that never learned the voices as they are. What it recovers is
the moved voice at best. Who knows alpha moves it back in part, so that this hides voices from those who listen and not
from those who compare: a judge of speakers may still link moved clips to real ones.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_audio.splits import AudioSplit, quantised
from mi_defense_speaker_anonymise.mcadams import ORDER, anonymised
from micore.contracts import Config, Defense, Samples, Split
from micore.errors import DataError

BATCH = 64


class McAdamsConfig(Config):
    """Settings of the defense."""

    alpha: float = Field(0.8, gt=0, le=2, description="power of the poles' angles; 1: nothing is moved; B2: 0.8")
    order: int = Field(ORDER, ge=2, le=60, description="of the linear prediction; B2: 20")


class McAdams(Defense):
    """Move the resonances of all training clips once, before the training; held-out clips stay as they are."""

    Config: ClassVar[type[Config]] = McAdamsConfig
    config: McAdamsConfig

    def adapt_data(self, split: Split) -> Split:
        """Return the clips anonymised, with their labels and transcripts.

        Raises: DataError for samples that are no waveforms.
        """
        parts = [self._moved(split.take(rows)) for rows in torch.arange(len(split)).split(BATCH)]
        said = split.transcripts if isinstance(split, AudioSplit) else ()
        return AudioSplit(torch.cat(parts), split.labels, said)

    def _moved(self, waveforms: Samples) -> Tensor:
        if not isinstance(waveforms, Tensor) or waveforms.ndim != 2:
            raise DataError("mcadams changes waveforms, and the training data are none")
        return quantised(anonymised(waveforms, self.config.alpha, self.config.order))
