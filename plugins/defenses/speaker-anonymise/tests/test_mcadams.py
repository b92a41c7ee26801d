"""The McAdams coefficient against the steps of the challenge's code, in numpy and scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from torch import Tensor

from mi_audio.adapter import AudioAdapter
from mi_audio.datasets.voices import open_voices
from mi_audio.spectra import long_term
from mi_defense_speaker_anonymise.mcadams import anonymised, burg, moved_frames
from mi_defense_speaker_anonymise.training_audio import McAdams
from micore import api
from micore.configs import make_config
from micore.errors import ConfigError, DataError
from micore.models import restore_network
from micore.registry import Registry

Values = NDArray[np.float64]
DATA = open_voices(None, speakers=4, clips=10, held=4, others=2, other_clips=2, seconds=0.5)
SPEECH = DATA.private.take(range(0, 40, 5))


def frame(seed: int) -> Values:
    """Return a windowed frame of a made voice."""
    start = 1500 + 160 * seed
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320))
    return np.asarray(SPEECH[seed, start : start + 320].double().numpy() * window)


def burg_of_one(signal: Values, order: int) -> Values:
    """Return the predictor of a frame as textbooks have it, one coefficient after the other."""
    ahead, behind, predictor = signal[1:].copy(), signal[:-1].copy(), np.ones(1)
    for _ in range(order):
        reflection = -2 * (ahead @ behind) / (ahead @ ahead + behind @ behind)
        extended = np.append(predictor, 0)
        predictor = extended + reflection * extended[::-1]
        ahead, behind = (ahead + reflection * behind)[1:], (behind + reflection * ahead)[:-1]
    return np.asarray(predictor)


def moved_one(signal: Values, alpha: float, order: int) -> Values:
    predictor = burg_of_one(signal, order)
    residual = lfilter(predictor, 1, signal)
    moved = []
    for pole in np.roots(predictor):
        angle = np.sign(np.angle(pole)) * min(abs(np.angle(pole)) ** alpha, np.pi)
        moved.append(pole if np.isreal(pole) else abs(pole) * np.exp(1j * angle))
    return np.asarray(lfilter([1], np.real(np.poly(moved)), residual))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("alpha", "order"), [(0.8, 20), (0.5, 12), (1.3, 20)])
def test_a_frame_is_that_of_numpy_and_scipy(seed: int, alpha: float, order: int) -> None:
    signal = frame(seed)
    np.testing.assert_allclose(burg(torch.tensor(signal)[None], order)[0].numpy(), burg_of_one(signal, order),
                               atol=1e-9)  # fmt: skip
    expected = moved_one(signal, alpha, order)
    found = moved_frames(torch.tensor(np.stack([signal, signal[::-1]])), alpha, order)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_burgs_method_finds_the_resonances_of_a_known_filter() -> None:
    poles = np.array([0.97 * np.exp(1j * 0.4), 0.95 * np.exp(1j * 1.5)])
    known = np.real(np.poly([*poles, *poles.conj()]))
    signal = lfilter([1], known, np.random.default_rng(0).normal(size=4000))
    np.testing.assert_allclose(burg(torch.tensor(signal)[None], 4)[0].numpy(), known, atol=0.05)


@pytest.mark.parametrize("length", [8000, 8001, 8159, 320, 100])
def test_a_power_of_one_gives_the_input_back(length: int) -> None:
    clips = SPEECH[:3, :length]
    torch.testing.assert_close(anonymised(clips, 1.0), clips, atol=1e-6, rtol=0)


def test_silence_and_company_change_nothing() -> None:
    clips = torch.cat([SPEECH[:2], torch.zeros(1, SPEECH.shape[1])])
    found = anonymised(clips, 0.8)
    assert torch.equal(found[2], clips[2])
    torch.testing.assert_close(anonymised(clips[1:2], 0.8), found[1:2], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.abs().amax(dim=1), clips.abs().amax(dim=1))
    assert not torch.allclose(found[0], clips[0], atol=0.01)


def test_resonances_below_a_radian_rise_and_those_above_fall() -> None:
    times = torch.arange(4800) / 16000
    for hertz, sign in ((600.0, 1), (5000.0, -1)):
        tone = 0.3 * (2 * torch.pi * hertz * times).sin()[None] + 0.001 * torch.randn(
            1, 4800, generator=torch.Generator().manual_seed(0)
        )
        peak = int(torch.fft.rfft(anonymised(tone, 0.8)[0]).abs()[50:].argmax() + 50) * 16000 / 4800
        # the residual keeps the tone's own frequency; what resonates moves
        envelope = torch.fft.rfft(moved_frames(torch.eye(320, dtype=torch.float64)[:1], 0.8)[0])
        assert envelope.isfinite().all()
        assert sign * (peak - hertz) >= -20


def test_training_data_are_changed_and_labels_stay() -> None:
    defense = McAdams(make_config(McAdams.Config, {}, "mcadams"))
    changed = defense.adapt_data(DATA.private)
    assert torch.equal(changed.labels, DATA.private.labels)
    assert changed.transcripts == DATA.private.transcripts
    difference: Tensor = (changed.take(range(40)) - DATA.private.take(range(40))).abs().mean(dim=1)
    assert float(difference.min()) > 0.001
    with pytest.raises(DataError, match="none"):
        defense.adapt_data(Texts())  # type: ignore[arg-type]
    for options in ({"alpha": 0}, {"alpha": 3}, {"order": 1}):
        with pytest.raises(ConfigError):
            make_config(McAdams.Config, options, "mcadams")


class Texts:
    """A split of another kind."""

    labels = torch.zeros(2, dtype=torch.int64)

    def __len__(self) -> int:
        return 2

    def take(self, indices: Any) -> list[str]:
        return ["a"] * len(indices)


def test_a_target_knows_moved_voices_less_and_one_that_learned_them_stays_useful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    options = {"speakers": 8, "clips": 16, "held": 8, "others": 2, "other_clips": 2, "seconds": 0.6}
    plain, defended = (
        api.train(
            data="voices", data_options=options, model="x-vector", defenses=defenses, device="cpu",
            output=tmp_path / f"{len(defenses)}.safetensors",
        )
        for defenses in ([], ["mcadams:alpha=0.7"])
    )  # fmt: skip
    held = open_voices(None, **options).holdout
    assert held is not None
    assert held.labels is not None
    module, _ = restore_network(Registry.discover(), plain)
    adapter, clear = AudioAdapter(plain.card.input), held.take(range(len(held)))
    with torch.no_grad():
        found, moved = (module.eval()(adapter(clips)).argmax(dim=1) for clips in (clear, anonymised(clear, 0.7)))
    rights = [float((answers == held.labels).float().mean()) for answers in (found, moved)]
    assert rights[0] > 0.8
    assert rights[1] < rights[0] - 0.15
    assert defended.card.metrics["holdout_accuracy"] > 0.4


def test_who_knows_the_power_moves_the_resonances_back_in_part() -> None:
    """The adaptive adversary: the inverse power on what was anonymised."""
    moved = anonymised(SPEECH, 0.7)
    back = anonymised(moved, 1 / 0.7)
    clear, before, after = (_shape(clips) for clips in (SPEECH, moved, back))
    assert float((after - clear).abs().mean()) < 0.9 * float((before - clear).abs().mean())


def _shape(clips: Tensor) -> Tensor:
    """Return the smoothed long-term spectra of clips in decibels, without their means."""
    levels = 20 * long_term(clips).clamp(min=1e-6).log10()
    return levels - levels.mean(dim=1, keepdim=True)
