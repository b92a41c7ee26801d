"""Recordings of the user's own, good and bad."""

from __future__ import annotations

import io
import zipfile

import numpy
import pytest
import soundfile
import torch

from mi_audio.datasets.folder import open_folder
from mi_audio.datasets.reading import Reader, cut, members
from micore.errors import DataError


def write(path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1, hz: float = 300.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    times = numpy.arange(round(seconds * rate)) / rate
    tone = 0.3 * numpy.sin(2 * numpy.pi * hz * times)
    soundfile.write(path, numpy.stack([tone] * channels, axis=1), rate)


@pytest.fixture
def speakers(tmp_path):
    for place, name in enumerate(("ann", "bob", "eve")):
        for number in range(4):
            write(tmp_path / name / f"{number}.wav", hz=200.0 + 100 * place + number)
    return tmp_path


def test_directories_are_speakers(speakers):
    found = open_folder(str(speakers), public_speakers="eve", seconds=0.5)
    assert found.classes == ("ann", "bob")
    assert found.private.labels.bincount().tolist() == [3, 3]
    assert found.holdout.labels.bincount().tolist() == [1, 1]
    assert len(found.public) == 4
    assert found.judging()[1] == ("ann", "bob", "somebody-else")
    assert found.notes == ()
    assert open_folder(str(speakers), public_speakers="eve", seconds=0.5).fingerprint == found.fingerprint


def test_long_recordings_give_several_clips_that_stay_together(speakers):
    write(speakers / "ann" / "long.wav", seconds=2.1)
    found = open_folder(str(speakers), public="none", seconds=0.5, holdout=0.0)
    assert found.private.labels.bincount().tolist() == [8, 4, 4]
    assert found.holdout is None
    assert found.public is None


def test_other_rates_and_channels_are_changed_and_said(speakers):
    write(speakers / "ann" / "0.wav", rate=8000, channels=2)
    write(speakers / "bob" / "1.flac", rate=44_100)
    found = open_folder(str(speakers), public="none", seconds=0.5)
    assert found.notes == (
        "1 recordings were mixed down from 2 channels",
        "1 recordings were resampled from 44100 Hz",
        "1 recordings were resampled from 8000 Hz",
    )


def test_a_resampled_tone_stays_the_tone(tmp_path):
    write(tmp_path / "a.wav", seconds=1.0, rate=8000, hz=440.0)
    heard = Reader().read(tmp_path / "a.wav", "a.wav")
    assert heard.shape == (16_000,)
    assert int(torch.fft.rfft(heard).abs().argmax()) == 440


def test_public_recordings_may_lie_elsewhere(speakers, tmp_path_factory):
    others = tmp_path_factory.mktemp("others")
    write(others / "x.wav")
    write(others / "deep" / "y.wav", hz=500.0)
    found = open_folder(str(speakers), public=str(others), seconds=0.5)
    assert found.classes == ("ann", "bob", "eve")
    assert len(found.public) == 2
    with pytest.raises(DataError, match="lie in each other"):
        open_folder(str(speakers), public=str(speakers / "ann"))


def silent(path):
    soundfile.write(path, numpy.zeros(8000), 16_000)


def short(path):
    write(path, seconds=0.05)


def corrupt(path):
    path.write_bytes(b"RIFF, but nothing that follows it")


def not_a_number(path):
    soundfile.write(path, numpy.full(8000, numpy.nan, dtype="float32"), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(silent, "silent"), (short, "0.05 s long"), (corrupt, "cannot be read as audio"), (not_a_number, "no numbers")],
)
def test_a_bad_recording_is_named(speakers, spoil, message):
    spoil(speakers / "bob" / "bad.wav")
    with pytest.raises(DataError, match=message) as error:
        open_folder(str(speakers), public="none")
    assert "bad.wav" in str(error.value)
    assert error.value.hint


def test_a_speaker_with_one_clip_is_named(speakers):
    write(speakers / "tom" / "only.wav")
    with pytest.raises(DataError, match="'tom' has 1 recording"):
        open_folder(str(speakers), public="none")
    assert "tom" in open_folder(str(speakers), public="none", holdout=0.0).classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "what does the adversary have"),
        ({"public": "none", "public_speakers": "ann"}, "contradict"),
        ({"public_speakers": "ann,bob,eve"}, "none is left"),
        ({"public_speakers": "tim"}, "tim"),
        ({"public": "none", "seconds": 0}, "seconds"),
    ],
)
def test_bad_options_are_named(speakers, options, message):
    with pytest.raises(DataError, match=message):
        open_folder(str(speakers), **options)


def test_bad_places_are_named(tmp_path):
    with pytest.raises(DataError, match="needs a directory"):
        open_folder(None)
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(str(tmp_path / "nowhere"), public="none")
    with pytest.raises(DataError, match="no directories"):
        open_folder(str(tmp_path), public="none")
    (tmp_path / "ann").mkdir()
    with pytest.raises(DataError, match="no recordings"):
        open_folder(str(tmp_path), public="none")


def test_pauses_are_left_out():
    speech = torch.rand(4800) - 0.5
    clips = cut(torch.cat([speech, torch.zeros(4800), speech, torch.zeros(99)]), 0.3)
    assert torch.equal(clips, torch.stack([speech, speech]))
    assert torch.equal(cut(speech[:3000], 0.3)[0, 3000:], torch.zeros(1800))


def test_recordings_are_read_from_archives(tmp_path):
    stream = io.BytesIO()
    soundfile.write(stream, 0.1 * numpy.ones(4000), 16_000, format="WAV")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/b.wav", stream.getvalue())
        archive.writestr("in/.hidden.wav", b"")
        archive.writestr("readme.txt", "no sound")
    assert [(name, len(Reader().read(source, name))) for name, source in members(tmp_path / "a.zip")] == [
        ("in/b.wav", 4000)
    ]
    (tmp_path / "b.zip").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no zip file"):
        list(members(tmp_path / "b.zip"))
