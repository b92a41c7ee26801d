"""Made voices: a buzz and a hiss through the resonances of a vocal tract (Fant, 1960), batched over utterances.

A `Voice` holds what is a speaker's own; a word is a row of sounds, each with three resonances. Nobody real speaks:
a voice is drawn from a seed, and what a microphone adds differs from clip to clip, so that it tells nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_audio.adapter import RATE
from micore.runtime import Random

FRAME_S = 0.01
SMOOTH = 3
"""Frames to either side over which sounds go into each other."""
REACH = SMOOTH + 2
"""Frames before and after a word in which some of it is heard: windows of a waveform have four frames."""
N_RESONANCES = 5
UPPER_HZ = (3500.0, 4500.0)
"""Of the fourth and fifth resonance, which are a speaker's own and move little."""

SOUNDS: dict[str, tuple[float, float, float, float, float, float]] = {
    # first three resonances in Hz, buzz, hiss, seconds; Peterson and Barney (1952) for vowels, rounded
    "i": (270, 2290, 3010, 1.0, 0.0, 0.12), "I": (390, 1990, 2550, 1.0, 0.0, 0.10),
    "e": (530, 1840, 2480, 1.0, 0.0, 0.12), "a": (730, 1090, 2440, 1.0, 0.0, 0.14),
    "o": (570, 840, 2410, 1.0, 0.0, 0.14), "u": (300, 870, 2240, 1.0, 0.0, 0.12),
    "V": (640, 1190, 2390, 1.0, 0.0, 0.10), "r": (490, 1350, 1690, 0.8, 0.0, 0.09),
    "w": (300, 610, 2200, 0.7, 0.0, 0.07), "n": (280, 1700, 2600, 0.5, 0.0, 0.08),
    "v": (250, 1100, 2300, 0.4, 0.15, 0.06), "z": (250, 1800, 2900, 0.3, 0.4, 0.09),
    "s": (400, 2800, 3700, 0.0, 0.6, 0.11), "f": (400, 1300, 2500, 0.0, 0.3, 0.09),
    "t": (400, 1900, 3200, 0.0, 0.5, 0.04), "k": (350, 1600, 2500, 0.0, 0.4, 0.05),
    "T": (350, 1500, 2600, 0.0, 0.25, 0.07), " ": (500, 1500, 2500, 0.0, 0.0, 0.07),
}  # fmt: skip

WORDS = {
    "0": "zIro", "1": "wVn", "2": "tu", "3": "Tri", "4": "for",
    "5": "faIv", "6": "sIks", "7": "sevn", "8": "eIt", "9": "naIn",
}  # fmt: skip
"""Digits as the sounds that they are made of."""


@dataclass(frozen=True)
class Voice:
    """What is a speaker's own.

    pitch: mean of the buzz in Hz; melody: its deviation in octaves; tract: factor on resonances (a shorter tract has
    higher ones); own: factor on each resonance, (5,); upper: where the last two lie; width: factor on bandwidths; tilt:
    of the buzz in dB per octave; breath: hiss beside the buzz; pace: factor on lengths.
    """

    pitch: float
    melody: float
    tract: float
    own: Tensor
    width: float
    tilt: float
    breath: float
    pace: float

    @classmethod
    def drawn(cls, rng: Random) -> Voice:
        """Draw a voice."""
        drawn = rng.uniform((7,)).tolist()
        own = 1 + 0.06 * rng.normal((N_RESONANCES,)).clamp(-2, 2)
        high = drawn[0] < 0.5  # half of the voices are high ones, whose tract is shorter
        return cls(
            pitch=(165 if high else 85) * 2 ** (0.7 * drawn[1]), melody=0.06 + 0.14 * drawn[2],
            tract=(1.02 if high else 0.86) + 0.16 * drawn[3], own=own, width=0.7 + 0.8 * drawn[4],
            tilt=-12 + 9 * drawn[5], breath=0.02 + 0.12 * drawn[6] ** 2, pace=0.85 + 0.3 * float(rng.uniform(())),
        )  # fmt: skip


@dataclass(frozen=True)
class Tracks:
    """How an utterance goes on, frame by frame: resonances (frames, 5) in Hz, buzz and hiss (frames,).

    words: the first frame of each word, and the one after its last; neighbours within `REACH` frames hear it as well.
    """

    resonances: Tensor
    buzz: Tensor
    hiss: Tensor
    words: tuple[tuple[int, int], ...] = ()


def spoken(words: Sequence[str], voice: Voice, frames: int, rng: Random) -> Tracks:
    """Return how a voice says words, from the start of a clip of so many frames on; what does not fit is cut."""
    sounds = " " + " ".join(WORDS[word] for word in words)
    rows = torch.tensor([SOUNDS[sound] for sound in sounds], dtype=torch.float32)
    jitter = rng.normal((len(sounds), 2)) * torch.tensor([0.12, 0.15])
    lengths = (rows[:, 5] * voice.pace * jitter[:, 0].exp() / FRAME_S).round().clamp(min=2).long()
    spread = rows.repeat_interleave(lengths, dim=0)[:frames]
    spread = functional.pad(spread, (0, 0, 0, frames - len(spread)))
    spread[spread[:, 0] == 0, :3] = torch.tensor(SOUNDS[" "][:3], dtype=torch.float32)
    smooth = _smoothed(spread[:, :5])
    upper = torch.tensor(UPPER_HZ).expand(frames, 2)
    resonances = torch.cat([smooth[:, :3], upper], dim=1) * voice.tract * voice.own
    return Tracks(resonances, smooth[:, 3], smooth[:, 4], _places(words, lengths))


def _places(words: Sequence[str], lengths: Tensor) -> tuple[tuple[int, int], ...]:
    """Return the frames of each word, of sounds with such lengths; a pause is before each."""
    ends = lengths.cumsum(0).tolist()
    sizes = [len(WORDS[word]) for word in words]
    firsts = [1 + sum(sizes[:place]) + place for place in range(len(words))]
    return tuple((ends[first - 1], ends[first + size - 1]) for first, size in zip(firsts, sizes, strict=True))


def length_of(words: Sequence[str], voice: Voice) -> float:
    """Return the seconds that a voice takes for words, without its variation."""
    return voice.pace * sum(SOUNDS[sound][5] for sound in " " + " ".join(WORDS[word] for word in words))


def _smoothed(tracks: Tensor, reach: int = SMOOTH) -> Tensor:
    """Average tracks (frames, k) over neighbouring frames: a mouth moves steadily."""
    padded = functional.pad(tracks.T[None], (reach, reach), mode="replicate")
    return functional.avg_pool1d(padded, 2 * reach + 1, stride=1)[0].T


def rendered(tracks: Sequence[Tracks], voices: Sequence[Voice], length: int, rng: Random) -> Tensor:
    """Return what is heard, (N, length) in [-1, 1]: each utterance at a loudness of its own, by its own microphone."""
    n, hop = len(tracks), round(RATE * FRAME_S)
    n_fft = 4 * hop
    window = torch.hann_window(n_fft)
    buzz, hiss = _buzz(voices, length, rng), rng.normal((n, length)) * 0.3

    def spectrum(sound: Tensor) -> Tensor:
        return torch.stft(sound, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)

    hz = torch.linspace(0, RATE / 2, n_fft // 2 + 1)
    pairs = [_gains(track, voice, hz) for track, voice in zip(tracks, voices, strict=True)]
    gains = [torch.stack(parts) for parts in zip(*pairs, strict=True)]
    frames = spectrum(buzz).shape[2]
    shaped = spectrum(buzz) * _fitted(gains[0], frames) + spectrum(hiss) * _fitted(gains[1], frames)
    heard = shaped * _microphones(n, hz, rng)[:, :, None]
    waveforms = torch.istft(heard, n_fft, hop, window=window, length=length)
    waveforms = waveforms / waveforms.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    loudness = 0.3 + 0.5 * rng.uniform((n, 1))
    return loudness * waveforms + 0.002 * rng.normal((n, length))


def _buzz(voices: Sequence[Voice], length: int, rng: Random) -> Tensor:
    """Return trains of pulses whose pitch wanders, (N, length), of all harmonics below half the rate."""
    pitch = torch.tensor([voice.pitch for voice in voices])[:, None]
    melody = torch.tensor([voice.melody for voice in voices])[:, None]
    points = rng.normal((len(voices), 6))
    wander = functional.interpolate(points[:, None], size=length, mode="linear", align_corners=True)[:, 0]
    fall = torch.linspace(0.5, -0.5, length)
    hz = pitch * 2 ** (melody * (0.7 * wander + fall))
    phase = (2 * math.pi * hz / RATE).cumsum(dim=1) + 2 * math.pi * rng.uniform((len(voices), 1))
    harmonics = (0.5 * RATE / hz).floor() - 1
    # the closed form of the sum of cos(k phase), k = 1 ... harmonics
    half = phase / 2
    below = half.sin()
    total = ((harmonics + 0.5) * phase).sin() / torch.where(below.abs() < 1e-4, 1e-4, 2 * below) - 0.5
    return torch.where(below.abs() < 1e-4, harmonics, total) / harmonics


def _gains(tracks: Tracks, voice: Voice, hz: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much of buzz and hiss passes at each frequency and frame, (bins, frames) each."""
    squared = 1j * hz[:, None, None]
    centre = tracks.resonances[None]
    band = voice.width * (50 + 0.04 * centre)
    passed = (centre.square() / (squared.square() + squared * band + centre.square())).abs().prod(dim=2)
    octaves = (hz.clamp(min=100) / 100).log2()[:, None]
    tilt = 10 ** (voice.tilt * octaves / 20)
    high = (hz / hz[-1])[:, None]  # hiss is made at the teeth: little of it is low
    hiss = voice.breath * tracks.buzz[None] * passed * tilt + tracks.hiss[None] * passed.sqrt() * high
    return passed * tilt * tracks.buzz[None], hiss


def _fitted(gains: Tensor, frames: int) -> Tensor:
    """Repeat the last frame of gains (N, bins, frames), or leave some out."""
    return functional.pad(gains, (0, max(0, frames - gains.shape[2])), mode="replicate")[:, :, :frames]


def _microphones(n: int, hz: Tensor, rng: Random) -> Tensor:
    """Return a smooth curve of up to some dB either way for each clip, (N, bins)."""
    points = 4 * rng.normal((n, 1, 6))
    decibels = functional.interpolate(points, size=len(hz), mode="linear", align_corners=True)[:, 0]
    return torch.as_tensor(10 ** (decibels / 20))
