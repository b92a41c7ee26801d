"""Sliding MI: its windows against a plain loop, and what it shows of a trained target."""

from __future__ import annotations

from statistics import mean

import pytest
import torch
from torch import Tensor, nn

from mi_attack_sliding_mi.attack import SlidingInversion
from mi_attack_sliding_mi.windows import HOP, offsets, shifted, window_of
from mi_audio.adapter import AudioAdapter
from mi_audio.networks import MelCnn
from mi_audio.sincnet import SincNet
from mi_audio.waveform_search import starts
from micore.configs import preset_config
from micore.contracts import Attack, Case
from micore.errors import ConfigError, DataError, ModelError
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Budget, Ledger

CPU = Runtime(device=torch.device("cpu"), seed=1)
SPEC = InputSpec(shape=(800,), options={"sampling_rate": 16000})
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(2)]


def attack(**options: object) -> SlidingInversion:
    return SlidingInversion(preset_config(SlidingInversion, "smoke", options, "sliding-mi"))


def regression() -> nn.Module:
    with CPU.seeded("regression"):
        return nn.Sequential(nn.Linear(320, 8), nn.Tanh(), nn.Linear(8, 3))


def target_of(module: nn.Module, spec: InputSpec = SPEC) -> Target:
    return Target(
        module, access=Access.WHITE_BOX, adapter=AudioAdapter(spec), input_spec=spec, classes=["a", "b", "c"],
        ledger=Ledger(budget=Budget()), runtime=CPU,
    )  # fmt: skip


def plain(waveform: Tensor, label: int, begins: list[int], steps: int, rate: float) -> Tensor:
    """Slide over a waveform (length,) with torch's own Adam, begun anew in each window."""
    module = regression()
    for begin in begins:
        chunk = waveform[begin : begin + 320].clone().requires_grad_()
        adam = torch.optim.Adam([chunk], lr=rate)
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.cross_entropy(module(chunk[None]), torch.tensor([label])).backward()
            adam.step()
            with torch.no_grad():
                chunk.clamp_(-1, 1)
        waveform = waveform.clone()
        waveform[begin : begin + 320] = chunk.detach()
    return waveform


def test_it_is_a_loop_over_windows_each_with_an_optimiser_of_its_own() -> None:
    sliding = attack(window_s=0.02, stride="half", inner_steps=7, passes=2, restarts=1, learning_rate=0.02,
                     start="pink", noise=0.0)  # fmt: skip
    begun = starts("pink", CASES, 1, 800, None, CPU)
    for place, item in enumerate(sliding.run(target_of(regression()), CASES, None, CPU)):
        expected = plain(begun[place, 0], place, 2 * [0, 160, 320, 480], 7, 0.02)
        torch.testing.assert_close(item.samples[0], expected, atol=1e-4, rtol=0)


def test_windows_cover_a_waveform_and_the_last_one_ends_with_it() -> None:
    assert offsets(1000, 300, 300) == [0, 300, 600, 700]
    assert offsets(900, 300, 300) == [0, 300, 600]
    assert offsets(300, 300, 75) == [0]
    assert shifted(torch.zeros(2, 1600), 1000).shape == (2, (1600 - 1000) // HOP + 1, 1000)


def test_the_window_is_the_networks_own() -> None:
    spec = InputSpec(shape=(8000,), options={"sampling_rate": 8000})
    assert window_of(SincNet(3, 8000), spec) == 3200
    assert window_of(nn.Sequential(MelCnn(3, 8000)), spec) == 1280
    with pytest.raises(ModelError, match="window"):
        window_of(nn.Linear(3, 3), spec)


def shown(stride: str) -> tuple[float, Trial]:
    trial = Trial("sliding-mi", stride=stride, inner_steps=20, start="laplace")
    _, found = trial.run()
    return mean(value for item in found for value in item.history["shifted-accuracy"]), trial


def test_overlap_convinces_the_target_at_more_places() -> None:
    apart, half, quarter = (shown(stride)[0] for stride in ("window", "half", "quarter"))
    assert min(half, quarter) > apart + 0.03, (apart, half, quarter)


def test_it_shows_more_than_noise_does() -> None:
    """The mean of two seeds: on the toy the attack is a weak one."""
    shown = []
    for seed in (0, 1):
        trial = Trial("sliding-mi", seed=seed)
        _, found = trial.run()
        noise = [starts("laplace", [case], 8, 4800, None, CPU)[0] for case in trial.cases]
        judged = zip(trial.cases, noise, strict=True)
        floor = mean(float(trial.setting.judge(case, part).mean()) for case, part in judged)
        shown.append(trial.recovered(found) - max(0.0, floor))
    assert mean(shown) > 0.06


def test_shifted_accuracy_is_that_of_the_samples_given_back() -> None:
    trial = Trial("sliding-mi")
    target, found = trial.run()
    for item in found:
        windows = shifted(item.samples, window_of(target.module.inner, target.input_spec))
        right = target.labels(windows.flatten(0, 1)).view(windows.shape[:2]) == item.case.label
        assert right.float().mean(dim=1).tolist() == pytest.approx(list(item.history["shifted-accuracy"]), abs=0.05)
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert trial.setting.problem(item.samples) is None


def test_it_may_begin_with_public_clips() -> None:
    trial = Trial("sliding-mi")
    sliding = attack(start="public-clip")
    prepared = sliding.prepare(trial.target(), trial.dataset.split("public"), trial.runtime)
    found = list(sliding.run(trial.target(), trial.cases, prepared, trial.runtime))
    assert len(found) == len(trial.cases)
    assert isinstance(sliding, Attack)


def test_what_is_missing_or_wrong_is_said() -> None:
    with pytest.raises(DataError, match="public clips"):
        attack(start="public-clip").prepare(target_of(regression()), None, CPU)
    with pytest.raises(DataError, match="not prepared"):
        list(attack(start="public-clip", window_s=0.02).run(target_of(regression()), CASES, None, CPU))
    with pytest.raises(ConfigError, match="longer than a clip"):
        list(attack(window_s=0.2).run(target_of(regression()), CASES, None, CPU))
    with pytest.raises(ConfigError, match="stride"):
        attack(stride="third")
