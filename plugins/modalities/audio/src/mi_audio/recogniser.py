"""A recogniser of spoken digits as a target: it writes transcripts, and tells how likely given ones are.

A small network in the manner of Deep Speech 2 (Amodei et al., ICML 2016): log-mels, two strided convolutions, a
recurrent layer in both directions, CTC. In training a burst of noise drowns a part of each clip, in the place of the
masks of SpecAugment (Park et al., Interspeech 2019): the network learns to write words that it cannot hear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from mi_audio.ctc import POSSIBLE, beam_search, greedy, log_likelihoods
from mi_audio.features import LogMel
from mi_audio.networks import MEL_MEAN, MEL_STD
from mi_audio.transcripts import coded, decoded, letters, written
from micore.errors import UsageError
from micore.threat import Access

TRANSCRIBE, LIKELIHOODS = "transcribe", "log_likelihoods"

LOUDNESS, TILT, FLICKER = (-1.0, 2.0), 1.5, 0.15
"""Of bursts of noise in scaled log-mels: from soft to as loud as speech; the difference of the highest and the lowest
frequency at most; and the deviation that windows of 32 ms leave."""


class Recogniser(nn.Module):
    """Writes what is said in waveforms of any length from ``min_length`` on.

    Args:
        n_letters: letters that it writes, besides the blank.
        rate: samples per second of the waveforms.
        width: channels of the convolutions.
        hidden: width of the recurrent layer, of each direction.
        bursts: of noise in each clip in training; 0: none.
        burst_s: seconds of the longest.
    """

    services: ClassVar[Mapping[str, Access]] = {TRANSCRIBE: Access.LABEL, LIKELIHOODS: Access.SCORES}
    stride: ClassVar[int] = 4

    def __init__(
        self, n_letters: int, rate: int = 8000, width: int = 64, hidden: int = 96, bursts: int = 1, burst_s: float = 1.5
    ) -> None:
        super().__init__()
        if n_letters < 1 or bursts < 0 or burst_s < 0:
            raise ValueError(f"Recogniser: n_letters={n_letters}, bursts={bursts}, burst_s={burst_s}")
        self.front = LogMel(rate)
        self.stages = nn.Sequential(self._stage(self.front.mels, width), self._stage(width, width))
        self.memory = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, n_letters + 1)
        self.bursts, self.widest = bursts, round(100 * burst_s)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv1d(inputs, outputs, 5, stride=2, padding=2)
        return nn.Sequential(convolution, nn.GroupNorm(1, outputs), nn.ReLU())

    @property
    def min_length(self) -> int:
        """The fewest samples of a waveform: one frame after the convolutions."""
        return self.stride * self.front.hop

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return logits (B, frames, letters + 1) of waveforms (B, length): 25 frames a second, number 0 the blank."""
        if waveforms.ndim != 2 or waveforms.shape[1] < self.min_length:
            raise ValueError(
                f"Recogniser: waveforms of shape {tuple(waveforms.shape)}; expected (B, at least {self.min_length})"
            )
        spectrograms = (self.front(waveforms) - MEL_MEAN) / MEL_STD
        if self.training and self.bursts:
            spectrograms = self._disturbed(spectrograms)
        states, _ = self.memory(self.stages(spectrograms).transpose(1, 2))
        logits: Tensor = self.head(states)
        return logits

    def _disturbed(self, spectrograms: Tensor) -> Tensor:
        """Drown random stretches of time in noise, each of a loudness and tilt of its own."""
        n, mels, frames = spectrograms.shape
        drawn = torch.rand((4, n, self.bursts, 1), device=spectrograms.device)
        widths = drawn[0] * self.widest
        starts = drawn[1] * (frames - widths).clamp(min=0)
        times = torch.arange(frames, device=spectrograms.device)
        tilts = torch.linspace(-1, 1, mels, device=spectrograms.device)
        for burst in range(self.bursts):
            drowned = (times >= starts[:, burst]) & (times < starts[:, burst] + widths[:, burst])
            level = (
                LOUDNESS[0]
                + (LOUDNESS[1] - LOUDNESS[0]) * drawn[2, :, burst]
                + TILT * (drawn[3, :, burst] - 0.5) * tilts
            )
            noise = level[:, :, None] + FLICKER * torch.randn_like(spectrograms)
            spectrograms = torch.where(drowned[:, None], noise, spectrograms)
        return spectrograms

    def log_posteriors(self, waveforms: Tensor) -> Tensor:
        """Return the log-probabilities of letters at each frame, (B, frames, letters + 1)."""
        return self(waveforms).float().log_softmax(dim=2)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the probabilities of letters at each frame, one frame after the other, (B, frames * (letters + 1))."""
        return self.log_posteriors(inputs).exp().flatten(1)

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the negative log-likelihood of each transcript, (N,), in nats; 0 where a clip is too short for it."""
        found = log_likelihoods(self.log_posteriors(inputs), letters(labels))
        return torch.where(found > POSSIBLE, -found, torch.zeros_like(found))

    def quality(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the edit distance of each transcript to the true one over its length, by greedy decoding."""
        pairs = zip(self._transcribe(inputs), decoded(labels), strict=True)
        errors = [edit_distance(found, true) / max(1, len(true)) for found, true in pairs]
        return {"digit_error_rate": torch.tensor(errors)}

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        """Carry a service out.

        transcribe (beam: prefixes kept, 1 for the best way alone): what is said in each waveform, N texts.
        log_likelihoods (transcripts: M texts): that of each transcript given each waveform, float32 (N, M), in nats.
        """
        if name == TRANSCRIBE:
            return self._transcribe(inputs, **options)
        if name == LIKELIHOODS:
            return self._log_likelihoods(inputs, **options)
        raise UsageError(f"a recogniser offers no {name!r}")

    def _transcribe(self, inputs: Tensor, beam: int = 1) -> list[str]:
        frames = self.log_posteriors(inputs).cpu()
        return [written(row) for row in (greedy(frames) if beam == 1 else beam_search(frames, beam))]

    def _log_likelihoods(self, inputs: Tensor, transcripts: Sequence[str]) -> Tensor:
        longest = max(map(len, transcripts))
        asked = letters(coded(transcripts))[:, : max(1, longest)].to(inputs.device)
        frames, n = self.log_posteriors(inputs), len(inputs)
        return log_likelihoods(frames[:, None].expand(-1, len(asked), -1, -1), asked[None].expand(n, -1, -1))
