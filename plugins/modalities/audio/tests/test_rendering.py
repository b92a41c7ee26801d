"""Rendering of log-mel spectrograms: there and back, gradients, vocoders; the networks and the auto-encoder."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_audio.mel_networks import MelGenerator, MelReader
from mi_audio.mel_vae import MelVae, VaeSettings, VaeTraining
from mi_audio.rendering import Renderer, Scale, find_vocoder
from micore.errors import ConfigError, DataError
from micore.runtime import Random, Runtime

CPU = Runtime(device=torch.device("cpu"))


def hums(n: int = 6, length: int = 4000) -> Tensor:
    pitches = torch.linspace(200, 1500, n)[:, None]
    return 0.3 * (2 * math.pi * pitches * torch.arange(length) / 16_000).sin()


def test_there_and_back_keeps_a_spectrogram() -> None:
    renderer = Renderer(4000, 40, CPU)
    spectrograms = renderer.analysed(hums())
    assert spectrograms.shape == (6, *renderer.shape)
    waveforms = renderer.rendered(spectrograms)
    assert waveforms.shape == (6, 4000)
    assert waveforms.abs().max() <= 1
    loud = spectrograms > spectrograms.amax() - 6
    assert (renderer.analysed(waveforms) - spectrograms)[loud].abs().mean() < 0.5


def test_what_a_search_hears_is_near_to_what_is_rendered_and_has_gradients() -> None:
    renderer = Renderer(4000, 40, CPU, iterations=3, quick=3)
    spectrograms = renderer.analysed(hums()).requires_grad_(True)
    quick = renderer.searched(spectrograms)
    assert (renderer.analysed(quick.detach()) - renderer.analysed(renderer.rendered(spectrograms))).abs().median() < 0.5
    (slopes,) = torch.autograd.grad(quick.square().sum(), spectrograms)
    assert torch.isfinite(slopes).all()
    # energy rises with each log-mel value that holds any: the derivative of a power is about the power itself
    assert slopes.sum() == pytest.approx(float(quick.detach().square().sum()), rel=0.2)


def test_rows_do_not_depend_on_each_other() -> None:
    renderer = Renderer(4000, 40, CPU)
    spectrograms = renderer.analysed(hums())
    for render in (renderer.rendered, renderer.searched):
        torch.testing.assert_close(render(spectrograms)[:2], render(spectrograms[:2]), rtol=1e-3, atol=1e-4)


def halves(spectrograms: Tensor, length: int) -> Tensor:
    """Stand in for a vocoder."""
    return torch.full((len(spectrograms), length), 0.5)


def cut(spectrograms: Tensor, length: int) -> Tensor:
    """Stand in for a vocoder that does not keep to the length."""
    return halves(spectrograms, length - 1)


def test_vocoders_are_found_by_name() -> None:
    vocoder = find_vocoder(f"{__name__}:halves")
    assert find_vocoder(None) is None
    made = Renderer(4000, 40, CPU, vocoder=vocoder).rendered(torch.zeros(2, 40, 26))
    assert torch.equal(made, torch.full((2, 4000), 0.5))
    with pytest.raises(DataError, match="shape"):
        Renderer(4000, 40, CPU, vocoder=cut).rendered(torch.zeros(2, 40, 26))
    for name in ("nobody.has:it", "math:nothing", "math:pi", "math", ":x"):
        with pytest.raises(ConfigError, match="vocoder"):
            find_vocoder(name)


def test_clips_shorter_than_a_window_are_refused() -> None:
    with pytest.raises(DataError, match="too short"):
        Renderer(100, 40, CPU)


def test_the_scale_is_of_each_band() -> None:
    spectrograms = torch.randn(50, 3, 20) * torch.tensor([1.0, 2, 3])[:, None] + torch.tensor([0.0, 5, -5])[:, None]
    scale = Scale.restored(Scale.of(spectrograms).state(), CPU)
    scaled = scale.scaled(spectrograms)
    torch.testing.assert_close(scaled.mean(dim=(0, 2)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(scale.unscaled(scaled.clamp(-5, 5)), scaled.clamp(-5, 5) * scale.deviation + scale.mean)


@pytest.mark.parametrize(("frames", "condition"), [(9, 0), (31, 3), (101, 0)])
def test_networks_of_any_number_of_frames(frames: int, condition: int) -> None:
    vae = MelVae(5, 40, frames, 8, condition)
    known = torch.randn(2, condition) if condition else None
    made = vae.generator(torch.randn(2, 5), known)
    assert made.shape == (2, 40, frames)
    mean, log_variance = vae.encode(made, known)
    assert mean.shape == log_variance.shape == (2, 5)


def test_networks_see_each_row_by_itself() -> None:
    with CPU.seeded("networks"):
        generator, reader = MelGenerator(5, 40, 31, 8), MelReader(40, 31, 8, 1)
        latents = torch.randn(4, 5)
    made = generator(latents)
    torch.testing.assert_close(generator(latents[:1]), made[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reader(made[:1]), reader(made)[:1], rtol=1e-4, atol=1e-5)


def planes() -> tuple[Tensor, Tensor]:
    """Return spectrograms of which conditions tell the level, and something else the slope over time."""
    draw = torch.Generator().manual_seed(0)
    levels, slopes = torch.randn(200, 1, generator=draw), torch.randn(200, 1, 1, generator=draw)
    return levels[:, :, None] + slopes * torch.linspace(-1, 1, 16) + torch.zeros(1, 8, 1), levels


def trained(iterations: int, state: dict[str, Any] | None = None, keep: int | None = None) -> tuple[MelVae, Any]:
    spectrograms, levels = planes()
    with CPU.seeded("vae"):
        vae = MelVae(3, 8, 16, 16, 1)
    settings = VaeSettings(latent_dim=3, width=16, batch_size=32, learning_rate=1e-2, kl_weight=1e-2)
    training = VaeTraining(vae, spectrograms, levels, Random(1), settings)
    if state is not None:
        training.load(state)
    kept = None
    while training.iteration < iterations:
        training.step()
        kept = training.state() if training.iteration == keep else kept
    return vae.eval(), kept


def test_what_is_known_decides_what_it_tells_of_and_latents_the_rest() -> None:
    vae = trained(300)[0].requires_grad_(False)
    known = torch.tensor([[-1.0], [0.0], [1.0]]).repeat_interleave(40, dim=0)
    made = vae.generator(torch.randn(120, 3, generator=torch.Generator().manual_seed(2)), known)
    levels = made.mean(dim=(1, 2)).view(3, 40).mean(dim=1)
    torch.testing.assert_close(levels, torch.tensor([-1.0, 0, 1]), rtol=0, atol=0.3)
    assert (made[:, :, -1] - made[:, :, 0]).std() > 1.0


def test_a_killed_training_goes_on_bit_for_bit() -> None:
    whole, saved = trained(12, keep=5)
    resumed, _ = trained(12, state=saved)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
