"""Cases, truths, floors and previews of audio."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import soundfile
import torch

from mi_audio.cases import floors, instance_cases, observed, truths
from mi_audio.evidence import Voiceprint, evidence_of
from mi_audio.modality import AudioModality
from mi_audio.overlap import measure_overlap
from mi_audio.splits import AudioSplit
from mi_audio.toy import toys
from micore.contracts import Case
from micore.errors import UsageError
from micore.runtime import Random

MODALITY = AudioModality()


@pytest.fixture(scope="module")
def dataset():
    return toys()[0].dataset


class Echo:
    """A target that answers with the beginning of each clip."""

    def scores(self, samples):
        return samples[:, :5]


def test_classes_are_cases(dataset):
    cases = MODALITY.cases("class", dataset, dataset.classes, "hum-1,3")
    assert [(case.id, case.label) for case in cases] == [("class-1", 1), ("class-3", 3)]
    with pytest.raises(UsageError, match="no evidence"):
        MODALITY.cases("class", dataset, dataset.classes, None, "embedding")
    with pytest.raises(UsageError, match="goal 'structure'"):
        MODALITY.cases("structure", dataset, dataset.classes, None)
    with pytest.raises(UsageError, match="what its classes are"):
        MODALITY.cases("class", None, (), None)


def test_clips_are_cases_with_the_targets_answer(dataset):
    cases = instance_cases(dataset, "3,40", None)
    assert [case.id for case in cases] == ["clip-3", "clip-40"]
    held = observed(cases, dataset, Echo())
    clip = dataset.private.take([40])
    assert torch.equal(evidence_of(held[1], Voiceprint).values, clip[0, :5])
    truth = truths(held, dataset)["clip-40"]
    assert torch.equal(truth.sample, clip)
    assert truth.label == 1
    assert truths(MODALITY.cases("class", dataset, dataset.classes, None), dataset) == {}


def test_unchosen_clips_are_of_all_speakers(dataset):
    rows = [int(case.id.removeprefix("clip-")) for case in instance_cases(dataset, None, None)]
    assert dataset.private.labels[rows].bincount().tolist() == [5, 5, 5, 5]


def test_the_floor_does_not_look_at_the_evidence(dataset):
    cases = instance_cases(dataset, "0-4", None)
    (name, found), *_ = floors(cases, dataset).items()
    assert name == "random-public"
    again = floors(cases[2:3], dataset)[name]
    assert torch.equal(found[2].samples, again[0].samples)


def test_bad_choices_and_evidence_are_named(dataset):
    with pytest.raises(UsageError, match="has none such"):
        instance_cases(dataset, None, "picture")
    with pytest.raises(UsageError, match="needs the private clips"):
        instance_cases(None, None, None)
    with pytest.raises(UsageError, match="holds NoneType"):
        evidence_of(Case(id="clip-0", goal="instance"), Voiceprint)


def test_previews_are_heard_and_seen(tmp_path, dataset):
    clips = dataset.private.take([0, 40])
    (path,) = MODALITY.export({"class-0": clips, "empty": clips[:0]}, tmp_path)
    heard, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    assert torch.allclose(torch.from_numpy(heard[:4800]), clips[0], atol=1e-4)
    shown = MODALITY.show(clips, 9)
    assert shown.count("<audio controls") == shown.count("<img alt=") == 2
    assert not re.search(r"https?:", shown)
    assert "NaN" not in MODALITY.show(torch.full((1, 4800), torch.nan), 1)


def test_transcripts_are_stored_and_shown(tmp_path):
    lines = ["12345", "<b>", ""]
    assert MODALITY.unpack(MODALITY.pack(lines)) == lines
    assert MODALITY.unpack(MODALITY.pack([])) == []
    assert MODALITY.join([["1"], ["2", "3"]]) == ["1", "2", "3"]
    assert "&lt;b&gt;" in MODALITY.show(lines, 2)
    (path,) = MODALITY.export({"corpus": lines}, tmp_path)
    assert path.read_text() == "12345\n<b>\n\n"


def test_copies_are_found_at_another_loudness(dataset):
    clips = dataset.private.clips
    public = AudioSplit(torch.cat([clips[5:6], (clips[9:10] // 2), dataset.public.clips[:3]]))
    found = measure_overlap(replace(dataset, public=public))["public"]
    assert (found["equal"], found["examples"][0]) == (1, {"index": 0, "private_index": 5})
    assert {"index": 1, "private_index": 9} in found["examples"]


def test_augmentation_changes_each_clip_in_its_own_way(dataset):
    clips = dataset.private.take([0, 0])
    changed = MODALITY.augment(clips, "medium", Random(1))
    assert changed.shape == clips.shape
    assert not torch.equal(changed[0], changed[1])
    with pytest.raises(UsageError, match="unknown"):
        MODALITY.augment(clips, "wild", Random(1))
