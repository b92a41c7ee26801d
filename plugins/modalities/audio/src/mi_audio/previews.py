"""What a person can hear and see of clips: WAV files, players, spectrograms. Loudness is never changed."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import soundfile
import torch
from matplotlib.image import imsave
from torch import Tensor

from mi_audio.adapter import RATE
from mi_audio.spectra import stft
from micore.files import atomic_path, safe_name

LOWEST_DB, HIGHEST_DB = -80.0, 30.0
"""Of the power that a spectrogram shows from dark to bright; the same in all of them."""

BLURRED = (4, 8)
"""Bands and moments of a blurred clip: neither a voice nor a word is in so few."""

COLOURS = "magma"
TALLEST = 80


def export_clips(samples: Mapping[str, Tensor], directory: Path) -> list[Path]:
    """Write a WAV file with all clips of each key, one after the other with a pause between.

    Keys without clips get none. Raises: StorageError.
    """
    return [_write(clips, directory / f"{safe_name(key)}.wav") for key, clips in samples.items() if len(clips)]


def _write(clips: Tensor, path: Path) -> Path:
    pause = torch.zeros(len(clips), RATE // 4)
    row = torch.cat([playable(clips), pause], dim=1).flatten()
    with atomic_path(path) as temporary:
        soundfile.write(temporary, row.numpy(), RATE, format="WAV", subtype="PCM_16")
    return path


def playable(clips: Tensor) -> Tensor:
    """Return clips (N, length) within [-1, 1] on the CPU; what is no number is silence."""
    values = clips.detach().to("cpu", torch.float32)
    return values.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0).clamp(-1, 1)


def fragment(clips: Tensor, limit: int) -> str:
    """Return an HTML fragment with players and spectrograms of up to ``limit`` clips."""
    items = [_item(clip, index) for index, clip in enumerate(playable(clips[: max(limit, 0)]))]
    return f'<div class="mi-clips">{"".join(items)}</div>'


def _item(clip: Tensor, index: int) -> str:
    picture, sound = _encoded(_picture(clip)), _encoded(_sound(clip))
    seconds = f"{len(clip) / RATE:.1f} s"
    return (
        f'<div><img alt="spectrogram of sample {index + 1}, {seconds}, up to {RATE // 2} Hz" '
        f'src="data:image/png;base64,{picture}"><br>'
        f'<audio controls preload="none" title="sample {index + 1}" src="data:audio/wav;base64,{sound}"></audio></div>'
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _sound(clip: Tensor) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, clip.numpy(), RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _picture(clip: Tensor) -> bytes:
    """Draw a spectrogram as PNG."""
    decibels = _decibels(stft(clip[None])[0].abs().square())
    if len(decibels) > TALLEST:
        decibels = torch.nn.functional.adaptive_max_pool1d(decibels.T[None], TALLEST)[0].T
    return _drawn(decibels)


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.clamp(min=1e-10).log10()


def _drawn(decibels: Tensor) -> bytes:
    """Draw power (bands, moments) as PNG: time to the right, frequency upwards."""
    stream = io.BytesIO()
    levels = numpy.ascontiguousarray(decibels.numpy())
    imsave(stream, levels, vmin=LOWEST_DB, vmax=HIGHEST_DB, cmap=COLOURS, origin="lower", format="png")
    return stream.getvalue()


def blurred(clips: Tensor, limit: int) -> str:
    """Return an HTML fragment with pictures of up to ``limit`` clips: mean power in `BLURRED` parts, and no sound."""
    items = "".join(_blurred(clip, index) for index, clip in enumerate(playable(clips[: max(limit, 0)])))
    return f'<div class="mi-clips">{items}</div>'


def _blurred(clip: Tensor, index: int) -> str:
    power = torch.nn.functional.adaptive_avg_pool2d(stft(clip[None]).abs().square(), BLURRED)[0]
    bands, moments = BLURRED
    return (
        f'<img alt="loudness of sample {index + 1} in {bands} bands and {moments} moments" width="{moments * 16}" '
        f'height="{bands * 16}" style="image-rendering: pixelated" '
        f'src="data:image/png;base64,{_encoded(_drawn(_decibels(power)))}">'
    )


# what was said -------------------------------------------------------------------------------------------------


def export_transcripts(samples: Mapping[str, Sequence[str]], directory: Path) -> list[Path]:
    """Write a text file with the transcripts of each key.

    Raises: StorageError.
    """
    found = []
    for key, lines in samples.items():
        path = directory / f"{safe_name(key)}.txt"
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        found.append(path)
    return found


def transcripts(lines: Sequence[str], limit: int) -> str:
    """Return an HTML fragment with up to ``limit`` transcripts."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines[: max(limit, 0)])
    return f'<ul class="mi-transcripts">{items}</ul>'
