"""Clips in memory."""

from __future__ import annotations

import pytest
import torch

from mi_audio.splits import AudioSplit, quantised

CLIPS = quantised(torch.tensor([[0.5, -1.0, 0.0], [1.0, 0.25, -0.5]]))


def test_clips_come_in_the_canonical_range():
    split = AudioSplit(CLIPS, torch.tensor([1, 0]), ("one", "two"))
    assert split.take([1, 0]).tolist() == [[32767 / 32768, 0.25, -0.5], [0.5, -1.0, 0.0]]
    assert split.unlabelled().labels is None
    assert split.rows(torch.tensor([1])).transcripts == ("two",)


def test_clips_of_a_label():
    split = AudioSplit(CLIPS, torch.tensor([1, 0]))
    assert len(split.of(1)) == 1
    assert len(split.of(7)) == len(split.of(None)) == 0
    assert len(split.unlabelled().of(0)) == 0


def test_the_fingerprint_is_that_of_the_content():
    one, same = AudioSplit(CLIPS), AudioSplit(CLIPS.clone())
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != AudioSplit(CLIPS, torch.tensor([0, 1])).fingerprint
    assert one.fingerprint != AudioSplit(CLIPS, transcripts=("a", "b")).fingerprint


@pytest.mark.parametrize(
    "given",
    [
        {"clips": CLIPS.float()},
        {"clips": CLIPS[0]},
        {"clips": CLIPS, "labels": torch.tensor([0])},
        {"clips": CLIPS, "transcripts": ("one",)},
    ],
)
def test_other_types_are_refused(given):
    with pytest.raises(ValueError, match=r"must be|transcripts"):
        AudioSplit(**given)
