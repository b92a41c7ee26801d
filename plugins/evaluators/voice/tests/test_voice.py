"""Verification against scikit-learn and plain loops, and the evaluator as the core calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch import Tensor
from torch.nn import functional

from mi_audio.datasets.voices import open_voices
from mi_audio.ge2e import VARIABLE, Ge2e, has_weights
from mi_audio.modality import AudioModality
from mi_audio.spectra import long_term, shaped_noise
from mi_evaluator_voice.evaluator import VoiceConfig, VoiceEvaluator, enrolment
from mi_evaluator_voice.verification import (
    bootstrap_error_rate,
    equal_error_rate,
    is_first,
    own_minus_others,
    trial_scores,
)
from micore.configs import make_config
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import ConfigError, DataError, ModelError
from micore.registry import Registry
from micore.runtime import Random, Runtime
from micore.testing.lab import Lab

N, SPEAKERS, WIDTH = 30, 5, 8
CPU = Runtime(device=torch.device("cpu"))


def units(seed: int, *shape: int) -> Tensor:
    return functional.normalize(torch.tensor(np.random.default_rng(seed).normal(size=shape)), dim=1)


@pytest.fixture
def trials() -> tuple[Tensor, Tensor]:
    labels = torch.arange(N) % SPEAKERS
    scores = torch.tensor(np.random.default_rng(0).normal(size=(N, SPEAKERS)))
    return scores + functional.one_hot(labels, SPEAKERS), labels


# kernels --------------------------------------------------------------------------------------------------


def test_scores_are_cosines_to_the_mean_of_all_other_clips() -> None:
    enrolled, speakers = units(1, 3 * SPEAKERS, WIDTH), torch.arange(SPEAKERS).repeat(3)
    prints = torch.cat([enrolled[4:5], units(2, 3, WIDTH)])
    found = trial_scores(prints, enrolled, speakers, [[4], [], [], []])
    for row in range(4):
        for speaker in range(SPEAKERS):
            clips = [enrolled[k] for k in range(15) if speakers[k] == speaker and not (row == 0 and k == 4)]
            expected = functional.cosine_similarity(prints[row], torch.stack(clips).mean(dim=0), dim=0)
            assert float(found[row, speaker]) == pytest.approx(float(expected))


def test_a_speakers_only_clip_is_not_compared_with_itself_and_broken_prints_are_near_nobody() -> None:
    enrolled = units(1, 2, WIDTH)
    prints = torch.cat([enrolled[:1], torch.full((1, WIDTH), torch.nan, dtype=torch.float64)])
    found = trial_scores(prints, enrolled, torch.arange(2), [[0], []])
    assert found[0].isnan().tolist() == [True, False]
    assert found[1].tolist() == [0, 0]
    assert is_first(found, torch.zeros(2, dtype=torch.int64)).nan_to_num(9).tolist() == [9, 0]


def test_own_minus_others_and_rank_are_those_of_a_loop(trials: tuple[Tensor, Tensor]) -> None:
    scores, labels = trials
    scores[3] = 0.5  # as near to all
    for row, (line, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        others = [value for place, value in enumerate(line) if place != label]
        gap = line[label] - sum(others) / len(others)
        assert float(own_minus_others(scores, labels)[row]) == pytest.approx(gap)
        assert bool(is_first(scores, labels)[row]) == (line[label] > max(others))


@pytest.mark.parametrize("rounding", [0.0, 0.5])
def test_equal_error_rate_is_that_of_scikit_learn(trials: tuple[Tensor, Tensor], rounding: float) -> None:
    scores, labels = trials
    scores = (scores / rounding).round() * rounding if rounding else scores
    own = functional.one_hot(labels, SPEAKERS).flatten()
    passed, caught, _ = roc_curve(own.numpy(), scores.flatten().numpy(), drop_intermediate=False)
    missed = 1 - caught
    place = np.abs(missed - passed).argmin()
    assert equal_error_rate(scores, labels) == pytest.approx((missed[place] + passed[place]) / 2, abs=1e-12)


def test_equal_error_rates_of_the_ends() -> None:
    labels = torch.arange(4)
    assert equal_error_rate(torch.eye(4), labels) == 0
    assert equal_error_rate(torch.zeros(4, 4), labels) == 0.5
    assert equal_error_rate(1 - torch.eye(4), labels) == 1


def test_the_bootstrap_is_over_classes(trials: tuple[Tensor, Tensor]) -> None:
    scores, labels = trials
    bounds = bootstrap_error_rate(scores, labels, 0, 500)
    assert bounds is not None
    assert bounds[0] < equal_error_rate(scores, labels) < bounds[1]
    assert bootstrap_error_rate(scores, labels, 0, 500) == bounds
    generator, slow = np.random.default_rng(1), []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(labels == k) for k in generator.integers(SPEAKERS, size=SPEAKERS)])
        slow.append(equal_error_rate(scores[rows], labels[rows]))
    np.testing.assert_allclose(bounds, np.quantile(slow, [0.025, 0.975]), atol=0.03)
    assert bootstrap_error_rate(scores[labels == 0], labels[labels == 0], 0, 500) is None


# the evaluator --------------------------------------------------------------------------------------------

MODALITY = AudioModality()


@pytest.fixture(scope="module")
def hums() -> Reference:
    """Return the toy problem with its judge."""
    lab = Lab(Registry.discover())
    setting = lab.setting("audio", ("class",))
    return Reference(
        modality=MODALITY, dataset=setting.dataset, target=lab.bundle(setting), evaluator_model=lab.judge(setting, CPU)
    )


def subject(name: str, waveforms: Tensor, per_case: int, **kinds: Any) -> Subject:
    """Claim rows of waveforms for class 0, 1, ... in turn."""
    items = [
        Reconstruction(case=Case(id=f"class-{k}", goal="class", label=k), samples=part, scores=torch.zeros(len(part)))
        for k, part in enumerate(waveforms.split(per_case))
    ]
    return Subject(name=name, reconstructions=items)


def by_name(found: list[Measurement]) -> Mapping[tuple[str, str], Measurement]:
    return {(item.subject, item.name): item for item in found}


def judged(reference: Reference, *subjects: Subject, **options: Any) -> Mapping[tuple[str, str], Measurement]:
    config = make_config(VoiceConfig, {"resamples": 200, **options}, "voice")
    return by_name(VoiceEvaluator(config).evaluate(subjects, reference, CPU))


def clips_of(dataset: Any, split: str, per_class: int) -> Tensor:
    part = dataset.split(split)
    rows = [part.labels.eq(k).nonzero().flatten()[:per_class] for k in range(len(dataset.classes))]
    return torch.cat([part.take(row) for row in rows])


def test_own_clips_are_told_from_noise_and_from_another_speaker(hums: Reference) -> None:
    own = clips_of(hums.dataset, "private", 3)
    noise = 0.1 * Random(1).normal((12, own.shape[1]))
    found = judged(
        hums, subject("own", own, 3), subject("wrong", own.roll(3, 0), 3), subject("noise", noise, 3), encoder="judge"
    )
    assert found["own", "rank-1"].value == 1
    assert found["wrong", "rank-1"].value == 0
    assert found["own", "own-other"].value > 0.2 > found["noise", "own-other"].value > -0.1
    assert found["wrong", "own-other"].value < 0
    assert found["own", "eer"].value < 0.05
    assert found["noise", "eer"].value > 0.2
    item = found["own", "eer"]
    assert (item.n, item.clusters, item.direction) == (12, 4, "down")
    assert "12 trials of the own speaker, 36 of others" in item.notes
    assert found["own", "rank-1"].per_case == {f"class-{k}": 1.0 for k in range(4)}
    assert any("4 speakers by 32 holdout clips" in note for note in item.notes)


def test_held_out_clips_are_not_compared_with_themselves(hums: Reference) -> None:
    held = clips_of(hums.dataset, "holdout", 1)
    single = replace(hums.dataset, holdout=hums.dataset.holdout.rows(torch.arange(4) * 8))
    alone = judged(replace(hums, dataset=single), subject("holdout", held, 1), encoder="judge")
    assert alone["holdout", "own-other"].n == 0
    assert alone["holdout", "eer"].n == 0
    whole = judged(hums, subject("holdout", held, 1), encoder="judge", enrolled=8)
    assert whole["holdout", "own-other"].n == 4


def test_the_speaker_of_an_instance_is_that_of_its_truth(hums: Reference) -> None:
    private = hums.dataset.split("private")
    cases = [Case(id=f"clip-{row}", goal="instance") for row in (0, 40, 70)]
    truth = {case.id: Truth(sample=private.take([row]), label=int(private.labels[row]))
             for case, row in zip(cases, (0, 40, 70), strict=True)}  # fmt: skip
    items = [Reconstruction(case=case, samples=truth[case.id].sample, scores=torch.zeros(1)) for case in cases]
    found = judged(replace(hums, truth=truth), Subject(name="attack", reconstructions=items), encoder="judge")
    assert found["attack", "rank-1"].value == 1
    with pytest.raises(DataError, match="no samples of a class"):
        judged(hums, Subject(name="attack", reconstructions=items), encoder="judge")


def test_broken_samples_are_misses_and_said_so(hums: Reference) -> None:
    own = clips_of(hums.dataset, "private", 3)
    own[0] = torch.nan
    found = judged(hums, subject("attack", own, 3), encoder="judge")
    assert found["attack", "rank-1"].per_case["class-0"] == pytest.approx(2 / 3)
    assert "1 samples that the encoder cannot read are near to nobody" in found["attack", "rank-1"].notes


# which encoder judges -------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put weights that learned nothing where the published ones are looked for."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({"model_state": Ge2e().state_dict()}, tmp_path / "random.pt")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "random.pt"))
    return tmp_path / "random.pt"


def attacking_ge2e(reference: Reference) -> Reference:
    card = SimpleNamespace(model=SimpleNamespace(name="ge2e"))
    return replace(reference, target=SimpleNamespace(card=card, fingerprint="0" * 64))


def test_the_published_encoder_judges_where_its_weights_are(hums: Reference, weights: Path) -> None:
    item = judged(hums, subject("own", clips_of(hums.dataset, "private", 2), 2))["own", "own-other"]
    assert "ge2e, published" in item.notes[0]
    assert item.evaluator.startswith("voice@")
    assert not item.evaluator.endswith(hums.judge().identity)


def test_a_published_encoder_that_is_the_target_does_not_judge_itself(hums: Reference, weights: Path) -> None:
    reference, own = attacking_ge2e(hums), subject("own", clips_of(hums.dataset, "private", 2), 2)
    item = judged(reference, own)["own", "own-other"]
    assert "features of the evaluator model x-vector (ge2e is the target)" in item.notes[0]
    assert item.evaluator == f"voice@{hums.judge().identity}"
    with pytest.raises(ModelError, match="no judge of what was recovered from itself"):
        judged(reference, own, encoder="ge2e")


def test_without_weights_the_evaluator_model_judges_and_the_notes_say_so(
    hums: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("mi_audio.ge2e.PACKAGE", "no_such_package_here")
    own = subject("own", clips_of(hums.dataset, "private", 2), 2)
    assert "(no weights of ge2e here)" in judged(hums, own)["own", "eer"].notes[1]
    with pytest.raises(ModelError, match="not here"):
        judged(hums, own, encoder="ge2e")
    with pytest.raises(ModelError, match="needs an evaluator model"):
        judged(replace(hums, evaluator_model=None), own)


def test_bad_settings_and_data_are_refused(hums: Reference) -> None:
    with pytest.raises(ConfigError):
        make_config(VoiceConfig, {"encoder": "mine"}, "voice")
    lone = SimpleNamespace(name="lone", classes=("a",))
    with pytest.raises(DataError, match="needs two"):
        enrolment(lone)  # type: ignore[arg-type]
    few = replace(hums.dataset, classes=(*hums.dataset.classes, "nobody"))
    with pytest.raises(DataError, match="speakers without private clips"):
        enrolment(few)
    assert isinstance(VoiceEvaluator(VoiceConfig()), Evaluator)


@pytest.mark.skipif(not has_weights(), reason=f"no weights: pip install --no-deps resemblyzer, or {VARIABLE}")
def test_voices_stand_above_their_colour(hums: Reference) -> None:
    data = open_voices(None, speakers=5, clips=6, held=6, others=2, other_clips=2, seconds=1.6)
    own = clips_of(data, "private", 4)
    colour = shaped_noise(long_term(own), own.shape[1], Random(3))
    reference = Reference(modality=MODALITY, dataset=data, target=None)
    found = judged(reference, subject("own", own, 4), subject("colour", colour, 4), encoder="ge2e")
    assert found["own", "rank-1"].value > found["colour", "rank-1"].value + 0.2
    assert found["own", "eer"].value < 0.3 < found["colour", "eer"].value
