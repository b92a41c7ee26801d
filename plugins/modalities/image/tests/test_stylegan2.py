"""The StyleGAN2-ADA generator against direct computations, and its official parameter names."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_image.stylegan2 import StyleGan2Generator, to_canonical
from mi_image.stylegan2_layers import EqualizedLinear, StyledConv, fir_filter, modulated_conv, upsample


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiny(size: int = 32, n_classes: int = 0) -> StyleGan2Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StyleGan2Generator(8, size, 3, w_dim=6, n_classes=n_classes, n_mapping_layers=2, channel_max=4).eval()
    model.mapping.w_avg.copy_(seeded(6, seed=9))
    return model


def zero_insert(maps: Tensor) -> Tensor:
    """Put a zero after every row and column: (B, C, H, W) to (B, C, 2H, 2W)."""
    spread = maps.new_zeros(*maps.shape[:2], 2 * maps.shape[2], 2 * maps.shape[3])
    spread[:, :, ::2, ::2] = maps
    return spread


def test_fir_filter_is_the_normalised_outer_product() -> None:
    expected = [[a * b / 64 for b in (1, 3, 3, 1)] for a in (1, 3, 3, 1)]
    torch.testing.assert_close(fir_filter(), torch.tensor(expected))


def test_upsampling_against_a_direct_computation() -> None:
    maps = seeded(1, 2, 3, 5)
    padded = functional.pad(zero_insert(maps), (2, 1, 2, 1))
    expected = torch.zeros(1, 2, 6, 10)
    taps = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    for i in range(4):
        for j in range(4):
            expected += 4 * taps[i] * taps[j] * padded[:, :, i : i + 6, j : j + 10]
    torch.testing.assert_close(upsample(maps, fir_filter()), expected)


def test_upsampling_keeps_a_constant_inside() -> None:
    doubled = upsample(torch.ones(1, 1, 5, 5), fir_filter())
    torch.testing.assert_close(doubled[:, :, 1:-1, 1:-1], torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_against_a_loop_over_samples(demodulate: bool) -> None:
    maps, weight, styles = seeded(3, 4, 5, 5), seeded(6, 4, 3, 3, seed=1), seeded(3, 4, seed=2)
    rows = []
    for sample, style in zip(maps, styles, strict=True):
        scaled = weight * style[None, :, None, None]  # equation 1
        if demodulate:
            scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()  # equation 3
        rows.append(functional.conv2d(sample[None], scaled, padding=1))
    torch.testing.assert_close(modulated_conv(maps, weight, styles, demodulate), torch.cat(rows), rtol=1e-4, atol=1e-5)


def test_upsampling_convolution_against_a_direct_computation() -> None:
    """A true convolution of the zero-inserted maps, then the FIR filter, each with its own padding."""
    maps, weight, styles = seeded(2, 4, 3, 3), seeded(6, 4, 3, 3, seed=1), seeded(2, 4, seed=2)
    spread = functional.pad(zero_insert(maps * styles[:, :, None, None]), (2, 1, 2, 1))
    convolved = functional.conv2d(spread, weight.flip(2, 3))  # 7x7 = 2 * 3 + 1
    kernel = 4 * fir_filter().expand(6, 1, 4, 4)
    expected = functional.conv2d(convolved, kernel, padding=1, groups=6)
    result = modulated_conv(maps, weight, styles, demodulate=False, kernel=fir_filter())
    assert result.shape == (2, 6, 6, 6)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_demodulation_gives_unit_variance() -> None:
    """For independent inputs of unit variance (StyleGAN2, section 2.2); away from the zero padding."""
    maps, weight = seeded(2, 32, 40, 40), seeded(16, 32, 3, 3, seed=1)
    styles = torch.stack([torch.full((32,), 0.01), torch.linspace(1, 50, 32)])
    result = modulated_conv(maps, weight, styles)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(result.var(dim=(2, 3)).mean(dim=1), torch.ones(2), rtol=0.05, atol=0)


def test_equalised_layer_scales_at_run_time() -> None:
    layer = EqualizedLinear(9, 4, bias_init=1.0, lr_multiplier=0.01)
    values = seeded(2, 9)
    expected = values @ layer.weight.t() * 0.01 / 3 + 0.01 * layer.bias
    torch.testing.assert_close(layer(values), expected)
    activated = EqualizedLinear(9, 4, activate=True)
    raw = values @ activated.weight.t() / 3
    torch.testing.assert_close(activated(values), torch.where(raw > 0, raw, 0.2 * raw) * math.sqrt(2))


@pytest.mark.parametrize(("size", "num_ws"), [(64, 10), (256, 14), (512, 16), (1024, 18)])
def test_number_of_style_codes_and_official_names(size: int, num_ws: int) -> None:
    with torch.device("meta"):
        model = StyleGan2Generator(size=size)
    assert model.num_ws == num_ws
    expected: dict[str, tuple[int, ...]] = {"mapping.w_avg": (512,)}
    for i in range(8):
        expected |= {f"mapping.fc{i}.weight": (512, 512), f"mapping.fc{i}.bias": (512,)}
    before = 0
    for r in (2**i for i in range(2, size.bit_length())):
        block, width = f"synthesis.b{r}", min(32768 // r, 512)
        expected[f"{block}.resample_filter"] = (4, 4)
        if not before:
            expected[f"{block}.const"] = (512, 4, 4)
        for name, inputs in ((("conv0", before),) if before else ()) + (("conv1", width),):
            layer = f"{block}.{name}"
            expected |= {f"{layer}.affine.weight": (inputs, 512), f"{layer}.affine.bias": (inputs,)}
            expected |= {f"{layer}.weight": (width, inputs, 3, 3), f"{layer}.bias": (width,)}
            expected |= {f"{layer}.noise_const": (r, r), f"{layer}.noise_strength": ()}
            expected[f"{layer}.resample_filter"] = (4, 4)
        expected |= {f"{block}.torgb.affine.weight": (width, 512), f"{block}.torgb.affine.bias": (width,)}
        expected |= {f"{block}.torgb.weight": (3, width, 1, 1), f"{block}.torgb.bias": (3,)}
        before = width
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


def test_the_conditional_mapping_has_the_official_names() -> None:
    shapes = {name: tuple(value.shape) for name, value in tiny(n_classes=5).mapping.state_dict().items()}
    assert shapes["embed.weight"] == (6, 5)
    assert shapes["fc0.weight"] == (6, 8 + 6)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_images_are_canonical_and_reproducible(size: int) -> None:
    model = tiny(size)
    latents = seeded(2, 8)
    images = model(latents)
    assert images.shape == (2, 3, size, size)
    assert 0 <= images.min() < images.max() <= 1
    torch.testing.assert_close(images, model(latents), rtol=0, atol=0)
    torch.testing.assert_close(images[:1], model(latents[:1]))


def test_truncation() -> None:
    mapping = tiny().mapping
    latents = seeded(3, 8)
    plain, average = mapping(latents), mapping.w_avg
    assert plain.shape == (3, mapping.num_ws, 6)
    torch.testing.assert_close(mapping(latents, truncation_psi=0), average.expand(3, mapping.num_ws, 6))
    half = mapping(latents, truncation_psi=0.5, truncation_cutoff=3)
    torch.testing.assert_close(half[:, :3], (average + 0.5 * (plain - average))[:, :3])
    torch.testing.assert_close(half[:, 3:], plain[:, 3:])


def test_the_length_of_z_does_not_matter() -> None:
    mapping = tiny().mapping
    torch.testing.assert_close(mapping(seeded(2, 8)), mapping(7 * seeded(2, 8)))


def test_the_mean_style_moves_in_training_only() -> None:
    mapping = tiny().mapping
    before = mapping.w_avg.clone()
    w = mapping(seeded(5, 8))[:, 0]
    assert torch.equal(mapping.w_avg, before)
    mapping.train()(seeded(5, 8))
    torch.testing.assert_close(mapping.w_avg, 0.995 * before + 0.005 * w.mean(0).detach())


def test_labels_change_a_conditional_generator() -> None:
    model = tiny(n_classes=5)
    latents = seeded(1, 8)
    first, second = (model.mapping(latents, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="labels below 5"):
        model(latents)
    with pytest.raises(ValueError, match="without labels"):
        tiny()(latents, torch.tensor([0]))


def test_w_and_w_plus_render_the_same() -> None:
    model = tiny()
    ws = model.mapping(seeded(2, 8))
    torch.testing.assert_close(model.render(ws[:, 0]), model.render(ws))
    torch.testing.assert_close(model.render(ws), model(seeded(2, 8)))


def test_the_blocks_can_be_run_in_two_parts() -> None:
    synthesis = tiny(64).synthesis
    ws = seeded(2, synthesis.num_ws, 6)
    assert [block.size for block in synthesis.blocks] == [4, 8, 16, 32, 64]
    maps, image = synthesis.blocks[0](None, None, ws[:, 0:2])
    maps, image = synthesis.blocks[1](maps, image, ws[:, 1:4])
    torch.testing.assert_close(synthesis(ws, start=2, maps=maps, image=image), synthesis(ws))


def test_noise_modes() -> None:
    layer = StyledConv(4, 4, 6, 8)
    maps, w = seeded(2, 4, 8, 8), seeded(2, 6, seed=1)
    torch.testing.assert_close(layer(maps, w), layer(maps, w, "none"))  # strength is 0 at the start
    with torch.no_grad():
        layer.noise_strength.fill_(1.0)
    first, again = (layer(maps, w, "random", torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, layer(maps, w, "const"))
    assert not torch.allclose(layer(maps, w, "const"), layer(maps, w, "none"))
    with pytest.raises(ValueError, match="needs rng"):
        layer(maps, w, "random")
    with pytest.raises(ValueError, match="choose"):
        layer(maps, w, "loud")


def test_layers_are_clamped() -> None:
    layer = StyledConv(4, 4, 6, 8, clamp=0.1)
    assert layer(seeded(2, 4, 8, 8), seeded(2, 6)).abs().max().item() == pytest.approx(0.1)


def test_conversion_clips_values_but_not_gradients() -> None:
    raw = torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
    images = to_canonical(raw)
    torch.testing.assert_close(images, torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0]), rtol=0, atol=0)
    images.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(raw.grad, torch.full((6,), 0.5))


def test_what_does_not_fit_is_refused() -> None:
    for size in (4, 48):
        with pytest.raises(ValueError, match="power of two"):
            StyleGan2Generator(size=size)
    model = tiny()
    with pytest.raises(ValueError, match=r"expected \(B, 8\)"):
        model(seeded(2, 9))
    with pytest.raises(ValueError, match=r"expected \(B, 8, 6\)"):
        model.render(seeded(2, 3, 6))
    with pytest.raises(ValueError, match="give 0 to 3"):
        model.synthesis(seeded(2, 8, 6), start=4)
    with pytest.raises(ValueError, match="maps are missing"):
        model.synthesis(seeded(2, 8, 6), start=1)
