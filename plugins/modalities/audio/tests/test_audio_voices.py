"""Made voices: different speakers, the same each time, and what a data set does to them."""

from __future__ import annotations

import pytest
import torch

from mi_audio.datasets.voices import open_voices
from mi_audio.features import LogMel
from mi_audio.synthesis import Voice, length_of, rendered, spoken
from micore.errors import DataError
from micore.runtime import Random

SMALL = {"speakers": 4, "clips": 10, "held": 4, "others": 4, "other_clips": 5, "seconds": 0.6}


@pytest.fixture(scope="module")
def voices():
    return open_voices(None, **SMALL)


def test_splits_have_their_sizes(voices):
    assert voices.private.labels.bincount().tolist() == [10] * 4
    assert voices.holdout.labels.bincount().tolist() == [4] * 4
    assert len(voices.public) == 20
    assert voices.public.labels is None
    assert voices.input.shape == (9600,)
    assert open_voices(None, **SMALL, rate=8000).input.shape == (4800,)
    split, classes = voices.judging()
    assert len(classes) == 8
    assert split.labels.bincount().tolist() == [10] * 4 + [4] * 4


def test_clips_are_heard_and_in_range(voices):
    clips = voices.private.take(range(len(voices.private)))
    assert float(clips.abs().max()) <= 1
    assert float(clips.square().mean(dim=1).sqrt().min()) > 0.01
    assert all(said.isdigit() for said in voices.private.transcripts)


def test_the_same_seed_gives_the_same_voices(voices):
    assert open_voices(None, **SMALL).fingerprint == voices.fingerprint
    assert open_voices(None, **SMALL, seed=1).fingerprint != voices.fingerprint


def test_a_speaker_is_known_by_the_voice_and_not_by_the_microphone(voices):
    """The nearest neighbour by spectra whose colour was taken away is of the same speaker more often than by chance."""
    front = LogMel(16_000)
    looks = front(voices.private.take(range(40)))
    centred = (looks - looks.mean(dim=2, keepdim=True)).std(dim=2)
    distances = torch.cdist(centred, centred).fill_diagonal_(torch.inf)
    nearest = voices.private.labels[distances.argmin(dim=1)]
    assert float(nearest.eq(voices.private.labels).float().mean()) > 0.5


def test_pitch_is_the_voices_own():
    low, high = (
        Voice(pitch=pitch, melody=0.0, tract=1.0, own=torch.ones(5), width=1.0, tilt=-6.0, breath=0.0, pace=1.0)
        for pitch in (100.0, 200.0)
    )
    tracks = [spoken("9", voice, 51, Random(1)) for voice in (low, high)]
    heard = rendered(tracks, [low, high], 8000, Random(2))
    spectrum = torch.fft.rfft(heard[:, 2000:6000] * torch.hann_window(4000)).abs()
    hertz = torch.arange(2001) * 4
    band = (hertz > 60) & (hertz < 260)
    for row, pitch in zip(spectrum[:, band], (100.0, 200.0), strict=True):
        peak = float(hertz[band][row.argmax()])
        assert min(abs(peak - pitch), abs(peak - 2 * pitch)) < 12


def test_slow_speakers_take_longer():
    fast, slow = Voice.drawn(Random(1)), Voice.drawn(Random(2))
    assert (length_of("12", fast) < length_of("12", slow)) == (fast.pace < slow.pace)
    assert length_of("1", fast) < length_of("12", fast)


def test_whitened_and_shuffled_data_keep_their_shapes(voices):
    white = open_voices(None, **SMALL, whiten=True)
    assert white.private.clips.shape == voices.private.clips.shape
    assert not torch.equal(white.private.clips, voices.private.clips)
    shuffled = open_voices(None, **SMALL, shuffle_labels=True)
    assert torch.equal(shuffled.private.clips, voices.private.clips)
    assert not torch.equal(shuffled.private.labels, voices.private.labels)
    judged, _ = shuffled.judging()
    assert torch.equal(judged.labels[:40], voices.private.labels)


def test_bad_options_are_named():
    with pytest.raises(DataError, match="takes no location"):
        open_voices("here")
    with pytest.raises(DataError, match="speakers"):
        open_voices(None, speakers=1)
    with pytest.raises(DataError, match="clips"):
        open_voices(None, clip=3)
