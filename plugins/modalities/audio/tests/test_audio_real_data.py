"""Real speech, where it is on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mi_audio.datasets.read_speech import PRIVATE, open_read_speech
from mi_audio.datasets.spoken_digits import ARCHIVE, open_spoken_digits
from micore.errors import DataError

ROOT = Path(os.environ.get("MI_DATA_ROOT", ""))


def needs(path: str):
    return pytest.mark.skipif(not (ROOT / path).is_file(), reason=f"{path} is not below MI_DATA_ROOT")


@needs(PRIVATE)
def test_readers_are_the_classes_and_others_are_public():
    found = open_read_speech(None)
    assert len(found.classes) == 10
    assert len(found.public) > 400
    assert int(found.holdout.labels.bincount().min()) >= 2
    assert found.input.shape == (25_600,)
    _, classes = found.judging()
    assert classes[-1] == "somebody-else"


@needs(ARCHIVE)
def test_spoken_digits_are_divided_by_their_numbers():
    found = open_spoken_digits(None, public="none")
    assert len(found.classes) == 6
    assert found.private.labels.bincount().tolist() == [230] * 6
    assert found.holdout.labels.bincount().tolist() == [50] * 6
    assert found.judging()[0].labels.bincount().tolist() == [220] * 6
    digits = open_spoken_digits(None, task="digit")
    assert digits.classes == tuple("0123456789")
    assert digits.public.labels is None
    assert digits.private.transcripts[0] in digits.classes
    clips = digits.private.take(range(5))
    assert torch.equal(clips, clips.clamp(-1, 1))


def test_without_files_the_place_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MI_DATA_ROOT", str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        open_read_speech(None)
    with pytest.raises(DataError, match="does not exist"):
        open_spoken_digits(None)
