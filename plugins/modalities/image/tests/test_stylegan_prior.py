"""The StyleGAN prior: W, W+, truncation, P space, features inside, sampling and restoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_image.stylegan2 import StyleGan2Generator
from mi_image.stylegan_prior import StyleGanPrior, restore_stylegan
from micore.artifacts import load_state, save_state
from micore.contracts import Prior
from micore.errors import ModelError
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), seed=5)
ARGUMENTS: dict[str, Any] = {
    "latent_dim": 8, "size": 32, "channels": 3, "w_dim": 6, "n_mapping_layers": 2, "channel_base": 64, "channel_max": 4,
}  # fmt: skip


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prior(**changes: Any) -> StyleGanPrior:
    with CPU.seeded("test"):
        generator = StyleGan2Generator(**{**ARGUMENTS, **changes})
        for name, parameter in generator.named_parameters():
            if "noise_strength" in name:  # 0 in a fresh network: noise would not matter
                parameter.data.fill_(0.3)
    generator.mapping.w_avg.copy_(seeded(6, seed=9))
    return StyleGanPrior(generator)


def test_it_is_a_prior_that_is_frozen() -> None:
    found = prior()
    assert isinstance(found, Prior)
    assert not found.generator.training
    assert not any(parameter.requires_grad for parameter in found.generator.parameters())
    assert (found.latent_dim, found.w_dim, found.num_ws, found.n_classes) == (8, 6, 8, 0)
    assert (found.channels, found.size, found.n_blocks) == (3, 32, 4)
    assert torch.equal(found.mean_w, seeded(6, seed=9))


def test_truncation_moves_codes_towards_the_mean() -> None:
    found = prior()
    latents = seeded(4, 8)
    plain, half = found.map(latents), found.map(latents, psi=0.5, cutoff=3)
    torch.testing.assert_close(half[:, :3], found.mean_w + 0.5 * (plain[:, :3] - found.mean_w))
    torch.testing.assert_close(half[:, 3:], plain[:, 3:])
    torch.testing.assert_close(found.map(latents, psi=0.0), found.mean_w.expand(4, 8, 6))


def test_w_is_w_plus_with_equal_codes_and_pictures_are_deterministic() -> None:
    found = prior()
    w = seeded(3, 6)
    images = found.render(w)
    assert images.shape == (3, 3, 32, 32)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, found.render(w[:, None].expand(-1, 8, -1)))
    assert torch.equal(images, found.render(w))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_start_and_finish_compose_to_render(block: int) -> None:
    found = prior()
    ws = seeded(2, 8, 6)
    features, skip = found.start(ws, block)
    assert features.shape[1:] == found.feature_shape(block)
    assert skip.shape[1:] == found.skip_shape(block)
    assert torch.equal(found.finish(features, skip, ws, block), found.render(ws))
    assert not torch.allclose(found.finish(features, None, ws, block), found.render(ws))


def test_features_can_be_led_on_block_by_block() -> None:
    found = prior()
    w = seeded(2, 6)
    features, skip = found.advance(*found.start(w, 1), w, 1, 3)
    torch.testing.assert_close((features, skip), found.start(w, 3), rtol=0, atol=0)


def test_gradients_reach_codes_and_features() -> None:
    found = prior()
    ws = seeded(2, 8, 6).requires_grad_(True)
    features, skip = (part.detach().requires_grad_(True) for part in found.start(ws, 2))
    found.finish(features, skip, ws, 2).square().sum().backward()  # type: ignore[no-untyped-call]
    for part in (features, skip):
        assert part.grad is not None
        assert part.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert ws.grad is not None
    assert (ws.grad[:, 3:].abs().sum(dim=(0, 2)) > 0).all()
    assert (ws.grad[:, :3] == 0).all()  # the codes of blocks 0 and 1 act through the features alone


def test_blocks_that_do_not_exist_are_refused() -> None:
    found = prior()
    for block in (0, 4):
        with pytest.raises(ValueError, match="blocks 1 to 3"):
            found.start(seeded(1, 6), block)
    with pytest.raises(ValueError, match="no block between"):
        found.advance(None, None, seeded(1, 6), 2, 2)


def test_samples_come_from_the_stream_alone() -> None:
    found = prior()
    first = found.sample(40, CPU.rng("samples"))
    torch.random.manual_seed(1)
    assert torch.equal(first, found.sample(40, CPU.rng("samples")))
    assert first.shape == (40, 3, 32, 32)
    latents = CPU.rng("samples").normal((40, 8))
    torch.testing.assert_close(first, found.render(found.map(latents)))
    mean = found.sample(2, CPU.rng("samples"), psi=0.0)
    torch.testing.assert_close(mean, found.render(found.mean_w.expand(2, -1)))


def test_labels_of_a_conditional_prior_are_drawn() -> None:
    found = prior(n_classes=3)
    assert found.sample(4, CPU.rng("samples")).shape == (4, 3, 32, 32)
    with pytest.raises(ValueError, match="give labels below 3"):
        found.map(seeded(1, 8))


def test_p_space_box_against_a_direct_computation() -> None:
    """Mean and deviation of w made nearly normal, and back; about two thirds of the samples lie inside."""
    found = prior()
    ws = found.sample_ws(5000, CPU.rng("box"), psi=0.7)[:, 0].double()
    points = torch.where(ws > 0, ws, 5 * ws)
    low, high = points.mean(dim=0) - points.std(dim=0), points.mean(dim=0) + points.std(dim=0)
    box = found.p_space_box(4096, CPU.rng("box"), psi=0.7)
    assert box.low.shape == (6,)
    wide = found.p_space_box(4097, CPU.rng("other"), psi=0.7, cutoff=2, plus=True)
    assert wide.low.shape == (8, 6)
    assert (wide.low[0] > wide.low[5]).any()
    expected = torch.where(low > 0, low, low / 5), torch.where(high > 0, high, high / 5)
    torch.testing.assert_close((box.low.double(), box.high.double()), expected, rtol=0.1, atol=0.05)
    inside = ((points >= low) & (points <= high)).double().mean(dim=0)
    assert (inside > 0.6).all()
    clamped = box.clamp(10 * ws.float())
    assert (clamped <= box.high).all()
    assert (clamped >= box.low).all()


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    found = prior()
    save_state(tmp_path / "state.safetensors", {"arguments": ARGUMENTS, "weights": found.generator.state_dict()})
    state, _ = load_state(tmp_path / "state.safetensors")
    before = torch.random.get_rng_state()
    restored = restore_stylegan(state, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(restored.render(seeded(2, 6)), found.render(seeded(2, 6)))
    restored.generator.synthesis.b4.const.data.zero_()
    assert state["weights"]["synthesis.b4.const"].abs().max() > 0  # what was prepared is never changed


def test_a_state_that_does_not_fit_is_refused() -> None:
    weights = prior().generator.state_dict()
    with pytest.raises(ModelError, match="the prior is no StyleGAN2 that this version builds"):
        restore_stylegan({"arguments": {**ARGUMENTS, "size": 16}, "weights": weights}, CPU)
    with pytest.raises(ModelError, match="power of two"):
        restore_stylegan({"arguments": {**ARGUMENTS, "size": 17}, "weights": weights}, CPU)
    with pytest.raises(ModelError, match="unexpected keyword"):
        restore_stylegan({"arguments": {**ARGUMENTS, "depth": 17}, "weights": weights}, CPU)
