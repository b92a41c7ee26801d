"""Noise in the place of a hidden word (Amid et al., Interspeech 2022, section 3)."""

from __future__ import annotations

from torch import Tensor

from mi_audio.evidence import Masked
from mi_audio.spectra import long_term, shaped_noise
from micore.errors import UsageError
from micore.runtime import Random

FILLS = ("speech-shaped", "white", "silence")
LOUDNESS = 0.1
"""The effective value of `shaped_noise`."""


def filled(held: Masked, fill: str, n: int, rng: Random, spread_db: float = 0.0) -> Tensor:
    """Return n copies of a clip, (n, length), with as loud noise in the span as the speech before it.

    fill: ``speech-shaped``, with the long-term spectrum of what is known of the clip; ``white``; or ``silence``.
    spread_db: how much louder or softer noise may be, another number for each copy.

    Raises: UsageError for another fill.
    """
    if fill not in FILLS:
        raise UsageError(f"fill {fill!r} is unknown", hint="one of " + ", ".join(FILLS))
    start, stop = held.span
    waveform = held.waveform.to(rng.device)
    copies = waveform.expand(n, -1).clone()
    if fill == "silence":
        copies[:, start:stop] = 0
        return copies
    known = waveform[:start] if start else waveform[stop:]
    level = known.square().mean().sqrt()
    if fill == "white":
        noise = rng.normal((n, stop - start))
    else:
        noise = shaped_noise(long_term(known[None]).expand(n, -1), stop - start, rng) / LOUDNESS
    gains = 10 ** (spread_db * (2 * rng.uniform((n, 1)) - 1) / 20)
    copies[:, start:stop] = (level * gains * noise).clamp(-1, 1)
    return copies
