"""Training of small StyleGANs: the discriminator's parts, R1, averaging, and resuming bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_image import stylegan2_discriminator
from mi_image.prior_training import StyleGanConfig
from mi_image.stylegan2_discriminator import Discriminator, EqualizedConv, minibatch_deviation
from mi_image.stylegan2_layers import fir_filter
from mi_image.stylegan2_training import StyleGanSettings, StyleGanTraining, r1_penalty, train_stylegan
from mi_image.stylegan_prior import restore_stylegan
from micore.artifacts import load_state, save_state
from micore.errors import DataError
from micore.runtime import Checkpoints, Runtime

CPU = Runtime(device=torch.device("cpu"), seed=5)
TINY = StyleGanSettings(
    latent_dim=8, w_dim=8, channel_base=64, channel_max=8, iterations=6, batch_size=4, r1_interval=2,
    style_mixing=0.5, ada_images=40,
)  # fmt: skip


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(n: int = 20, channels: int = 1, size: int = 8) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(3))


def quadrants(n: int) -> Tensor:
    """Dark pictures of 8 px with one bright quadrant each."""
    images = 0.05 * pictures(n)
    for row, image in enumerate(images):
        top, left = 4 * (row % 2), 4 * (row // 2 % 2)
        image[:, top : top + 4, left : left + 4] += 0.9
    return images


def test_minibatch_deviation_against_a_loop() -> None:
    maps = seeded(6, 3, 2, 2).double()
    extended = minibatch_deviation(maps, group=4)  # 4 does not divide 6: groups of 3
    assert torch.equal(extended[:, :3], maps)
    for rows in (slice(0, 3), slice(3, 6)):
        deviation = ((maps[rows] - maps[rows].mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(extended[rows, 3], deviation.expand(3, 2, 2))


@pytest.mark.parametrize("kernel", [1, 3])
def test_downsampling_convolution_against_a_direct_computation(kernel: int) -> None:
    """Low-pass filter at full size, convolution at full size, then every second value."""
    layer = EqualizedConv(2, 4, kernel, down=True, activate=False)
    maps = seeded(3, 2, 8, 8)
    blur = fir_filter().expand(2, 1, -1, -1)
    smooth = functional.conv2d(functional.pad(maps, (1 + kernel // 2,) * 4), blur, groups=2)
    full = functional.conv2d(smooth, layer.weight / (2 * kernel**2) ** 0.5)
    torch.testing.assert_close(layer(maps), full[:, :, ::2, ::2], rtol=1e-4, atol=1e-5)


def test_no_strided_1x1_convolution_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their backward pass crashes the process in some layouts (see `Runtime.place_channels_last`)."""
    used = []

    def recorded(maps: Tensor, weight: Tensor, *arguments: Any, **options: Any) -> Tensor:
        used.append((weight.shape[-1], options.get("stride", 1)))
        return torch.conv2d(maps, weight, *arguments, **options)

    monkeypatch.setattr(stylegan2_discriminator.functional, "conv2d", recorded)
    Discriminator(16, 1, 64, 8)(seeded(2, 1, 16, 16))
    assert (1, 1) in used
    assert not [item for item in used if item[0] == 1 and item[1] != 1]


def test_a_score_is_of_its_own_picture_within_a_group() -> None:
    critic = Discriminator(16, 3, 64, 8)
    images = seeded(8, 3, 16, 16)
    torch.testing.assert_close(critic(images)[:4], critic(images[:4]), rtol=1e-4, atol=1e-5)
    assert critic(images).shape == (8,)


def test_r1_against_the_jacobian_in_double_precision() -> None:
    critic = Discriminator(8, 1, 32, 4).double()
    images = seeded(4, 1, 8, 8).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: critic(x).sum(), images)  # type: ignore[no-untyped-call]
    penalty = r1_penalty(critic, images)
    torch.testing.assert_close(penalty, jacobian.square().flatten(1).sum(dim=1))
    weight = critic.last.weight
    (slope,) = torch.autograd.grad(penalty.sum(), weight)
    with torch.no_grad():
        weight[0, 0, 1, 1] += 1e-5
        change = (r1_penalty_value(critic, images) - penalty.sum()) / 1e-5
    torch.testing.assert_close(slope[0, 0, 1, 1], change, rtol=1e-3, atol=1e-6)


def r1_penalty_value(critic: Discriminator, images: Tensor) -> Tensor:
    with torch.enable_grad():
        return r1_penalty(critic, images).sum().detach()


def test_r1_of_a_quadratic() -> None:
    """D(x) = sum a x^2 / 2 has the gradient a x."""
    images, factors = seeded(3, 1, 8, 8), seeded(1, 1, 8, 8, seed=1)
    penalty = r1_penalty(lambda x: (factors * x.square() / 2).sum(dim=(1, 2, 3)), images)  # type: ignore[arg-type]
    torch.testing.assert_close(penalty, (factors * images).square().sum(dim=(1, 2, 3)))


def test_the_average_follows_the_generator() -> None:
    training = StyleGanTraining(pictures(), TINY, CPU)
    before = [parameter.clone() for parameter in training.average.parameters()]
    training.step()
    weight = 1 - 0.5 ** (4 / (0.05 * 4))  # the half-life is 5 % of the 4 images seen
    for old, now, new in zip(before, training.generator.parameters(), training.average.parameters(), strict=True):
        torch.testing.assert_close(new, old.lerp(now.detach(), weight))
    assert training.average.mapping.w_avg.eq(0).all()  # measured at the end


def test_w_avg_is_the_mean_style_code() -> None:
    state = train_stylegan(pictures(), replace(TINY, iterations=1), CPU)
    prior = restore_stylegan(state, CPU)
    codes = prior.sample_ws(20_000, CPU.rng("other"))[:, 0]
    error = (prior.mean_w - codes.mean(dim=0)).abs() / codes.std(dim=0)
    assert error.max() < 0.05


def test_augmentation_grows_only_while_the_discriminator_is_too_sure() -> None:
    training = StyleGanTraining(pictures(), TINY, CPU)
    for _ in range(3):
        training._adapt(torch.ones(4))
    assert training.strength.item() == pytest.approx(0.3)
    training._adapt(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    assert training.strength.item() == pytest.approx(0.2)
    for _ in range(20):
        training._adapt(torch.ones(4))
    assert training.strength.item() == 1.0


def test_mirrored_and_grey_images() -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[..., 0] = 1.0
    drawn = StyleGanTraining(images, replace(TINY, batch_size=64), CPU)._draw_real()
    assert 10 < (drawn[..., 0] > 0).all(dim=(1, 2)).sum() < 54
    drawn = StyleGanTraining(images[:, :1], replace(TINY, batch_size=64), CPU)._draw_real()
    assert (drawn[..., 0] == 1).all()
    assert (drawn[..., 1:] == -1).all()


def test_training_is_repeatable_and_takes_bytes() -> None:
    images = (pictures() * 255).to(torch.uint8)
    before = torch.random.get_rng_state()
    first = train_stylegan(images, TINY, CPU)["weights"]
    assert torch.equal(torch.random.get_rng_state(), before)
    again = train_stylegan(images.float() / 255, TINY, CPU)["weights"]
    assert all(torch.equal(first[name], again[name]) for name in again)


def test_mixed_precision_trains_too() -> None:
    runtime = Runtime.create("cpu", "bf16", seed=5)
    weights = train_stylegan(pictures(channels=3), TINY, runtime)["weights"]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    images = pictures(channels=3, size=16)
    whole = train_stylegan(images, TINY, CPU)
    path = tmp_path / "checkpoint.safetensors"
    checkpointed = CPU.with_checkpoints(Checkpoints(path, interval_s=0))
    train_stylegan(images, replace(TINY, iterations=3), checkpointed)
    saved = checkpointed.checkpoints.load()
    assert saved is not None
    assert saved["iteration"] == 3
    resumed = train_stylegan(images, TINY, CPU, saved)
    assert resumed["arguments"] == whole["arguments"]
    assert whole["weights"].keys() == resumed["weights"].keys()
    assert all(torch.equal(whole["weights"][name], value) for name, value in resumed["weights"].items())
    save_state(tmp_path / "state.safetensors", whole)
    assert load_state(tmp_path / "state.safetensors")[0]["arguments"] == whole["arguments"]


def test_a_generator_learns_what_the_images_are() -> None:
    """Half of its pictures have one bright quadrant and three dark ones; none of an untrained one's do."""
    settings = StyleGanSettings(
        latent_dim=8, w_dim=8, channel_base=128, channel_max=16, batch_size=8, learning_rate=0.02, ada_images=0
    )

    def share(iterations: int) -> float:
        prior = restore_stylegan(train_stylegan(quadrants(64), replace(settings, iterations=iterations), CPU), CPU)
        means = functional.avg_pool2d(prior.sample(200, CPU.rng("samples")), 4).flatten(1).sort(dim=1).values
        return ((means[:, 3] > 0.7) & (means[:, 2] < 0.35)).float().mean().item()

    assert share(1) < 0.05
    assert share(200) > 0.5


def test_the_command_line_offers_every_setting() -> None:
    assert StyleGanConfig().settings() == StyleGanSettings()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((5, 1, 28, 28), "not 28x28.*-D size=32"), ((5, 1, 4, 4), "-D size=8"), ((1, 1, 16, 16), "at least two"),
     ((5, 1, 16, 32), "square")],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_stylegan(torch.zeros(shape), TINY, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch sees no CUDA device")
def test_training_on_an_accelerator() -> None:
    runtime = Runtime.create("cuda", seed=5)
    state = train_stylegan(pictures(channels=3, size=16), TINY, runtime)
    prior = restore_stylegan(state, runtime)
    assert prior.sample(2, runtime.rng("samples")).device.type == "cuda"
    expected = restore_stylegan(train_stylegan(pictures(channels=3, size=16), TINY, CPU), CPU)
    found = prior.sample(4, runtime.rng("samples")).cpu()
    assert (found - expected.sample(4, CPU.rng("samples"))).abs().mean() < 0.1
