"""Fitting waveforms to what a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchaudio.functional import resample

from micore.errors import ModelError
from micore.inputs import InputSpec

RATE = 16_000
"""Samples per second of all canonical waveforms; models of another rate are given them resampled."""

RATE_OPTION = "sampling_rate"
"""The option of an `InputSpec` that holds a model's own samples per second."""


def rate_of(spec: InputSpec) -> int:
    """Return the samples per second of a model's input.

    Raises: ModelError when the spec names none.
    """
    rate = spec.options.get(RATE_OPTION)
    if not isinstance(rate, int) or rate < 1:
        raise ModelError(f"an audio model's input needs its sampling rate in Hz, not {rate!r}")
    return rate


@dataclass(frozen=True)
class AudioAdapter:
    """Give waveforms (N, length) of `RATE` in [-1, 1] to a model at its own rate, differentiably.

    Pieces of clips pass as well as whole clips: networks of speech take any length from one of their windows on.

    Raises: ModelError when the spec is not that of an audio model, or the samples are no waveforms.
    """

    spec: InputSpec

    def __post_init__(self) -> None:
        if len(self.spec.shape) != 1 or self.spec.shape[0] < 1:
            raise ModelError(f"an audio model takes waveforms (length,), not inputs of shape {self.spec.shape}")
        rate_of(self.spec)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Return the input of the model."""
        if not isinstance(waveforms, Tensor) or waveforms.ndim != 2:
            shape = tuple(getattr(waveforms, "shape", ()))
            raise ModelError(f"waveforms must be (N, length), not {shape or type(waveforms).__name__}")
        rate = rate_of(self.spec)
        return waveforms if rate == RATE else resample(waveforms, RATE, rate)
