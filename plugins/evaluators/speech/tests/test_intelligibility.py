"""What a recogniser makes of sounds: against plain loops, and who may judge."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mi_audio.adapter import AudioAdapter
from mi_audio.builders import recogniser
from mi_audio.transcripts import DIGITS, LABELS, TRANSCRIPTS
from mi_evaluator_speech.intelligibility import Listener, intelligibility, load_listener
from micore.artifacts import Bundle, Card, PluginUse
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.runtime import Random, Runtime

CPU = Runtime(device=torch.device("cpu"))
SPEC = InputSpec(shape=(4000,), options={"sampling_rate": 8000, LABELS: TRANSCRIPTS})
SMALL = {"width": 8, "hidden": 8}
CLIPS = 0.1 * Random(1).normal((5, 8000))


def network():
    with CPU.seeded("recogniser"):
        return recogniser(len(DIGITS), SPEC, **SMALL).eval()


def test_sureness_is_that_of_the_letters_that_begin():
    module = network()
    with torch.no_grad():
        module.head.weight *= 8  # unsure at every frame, it would write nothing
        frames = module.log_posteriors(AudioAdapter(SPEC)(CLIPS))
    sure, written = Listener(module, AudioAdapter(SPEC), "x").heard(CLIPS)
    for row, (value, count) in enumerate(zip(sure.tolist(), written.tolist(), strict=True)):
        logs, before = [], 0
        for frame in frames[row]:
            letter = int(frame.argmax())
            if letter and letter != before:
                logs.append(float(frame[letter]))
            before = letter
        assert value == pytest.approx(math.exp(sum(logs) / len(logs)) if logs else 0.0, abs=1e-5)
        assert count == pytest.approx(len(logs) / 0.5)
    assert float(written.sum()) > 0


def test_a_sample_that_is_no_sound_has_no_value():
    clips = CLIPS.clone()
    clips[2] = torch.nan
    figures = intelligibility([clips[:3], clips[3:]], Listener(network(), AudioAdapter(SPEC), "x"))
    assert [figure.name for figure in figures] == ["intelligible", "letters-a-second"]
    assert all(figure.values.isnan().tolist() == [False, False, True, False, False] for figure in figures)


@pytest.fixture
def saved(tmp_path):
    card = Card(
        role="recogniser", modality="audio", model=PluginUse(name="recogniser", config=SMALL), input=SPEC,
        classes=DIGITS, data={}, defenses=(), training={}, metrics={}, seed=0, versions={},
    )  # fmt: skip
    bundle = Bundle(card=card, weights=network().state_dict(), source="")
    bundle.save(tmp_path / "recogniser.safetensors")
    replace(bundle, card=replace(card, role="classifier")).save(tmp_path / "classifier.safetensors")
    return tmp_path


def test_a_bundle_of_a_recogniser_is_loaded(saved):
    listener = load_listener(saved / "recogniser.safetensors", SimpleNamespace(target=None), CPU)
    for one, other in zip(
        listener.heard(CLIPS), Listener(network(), AudioAdapter(SPEC), "x").heard(CLIPS), strict=True
    ):
        assert torch.equal(one, other)


def test_others_may_not_judge(saved):
    with pytest.raises(ModelError, match="is a classifier"):
        load_listener(saved / "classifier.safetensors", SimpleNamespace(target=None), CPU)
    target = Bundle.load(saved / "recogniser.safetensors")
    with pytest.raises(ModelError, match="the target itself"):
        load_listener(saved / "recogniser.safetensors", SimpleNamespace(target=target), CPU)
