"""Training of the completion network: its losses, resuming bit for bit, what it learns, what it asks of the target."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_image.corruptions import CORRUPTIONS
from mi_image.inpainting import Completer
from mi_image.inpainting_training import (
    InpaintingSettings,
    InpaintingTraining,
    _networks,
    diversity,
    evidence_distance,
    inpainting_state,
    restore_inpainting,
)
from micore.runtime import Checkpoints, Random, Runtime

CENTRE = CORRUPTIONS["centre"]
TINY = InpaintingSettings(latent_dim=3, width=2, critic_width=2, iterations=3, batch_size=4, learning_rate=1e-2)
CPU = Runtime(device=torch.device("cpu"), seed=1)


def dots(n: int = 32) -> Tensor:
    """Return dark pictures of 16 px with a bright square of 4 px in the middle, left or right of it."""
    images = torch.zeros(n, 1, 16, 16)
    images[::2, :, 6:10, 4:8], images[1::2, :, 6:10, 8:12] = 1, 1
    return images


def pixels(images: Tensor) -> Tensor:
    return images


def make(settings: InpaintingSettings = TINY, seed: int = 0, features: Any = pixels) -> InpaintingTraining:
    arguments = {
        "latent_dim": settings.latent_dim, "size": 16, "channels": 1, "width": settings.width,
        "critic_width": settings.critic_width,
    }  # fmt: skip
    networks = _networks(arguments, replace(CPU, seed=seed))
    return InpaintingTraining(networks, dots(), CENTRE, features, Random(seed), settings)


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors(value)]
    return [torch.as_tensor(state)]


def same(first: Any, second: Any) -> bool:
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return len(pairs) > 50 and all(torch.equal(one, other) for one, other in pairs)


def test_diversity_is_the_published_ratio() -> None:
    first, second = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[0.0, 2.0], [2.0, 1.0]])
    latents, others = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [1.0]])
    assert float(diversity(first, second, latents, others)) == pytest.approx((1 + 0 + 2 + 3) / 4 / ((0.5 + 1) / 2))


def test_evidence_distance_counts_what_the_evidence_shows() -> None:
    images, noise = (torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    evidence, masks = CENTRE.apply(images, torch.empty(3, 0))
    by_hand = [
        sum(
            abs(float(noise[row, c, y, x]) - float(images[row, c, y, x]))
            for c in range(2) for y in range(16) for x in range(16) if not (4 <= y < 12 and 4 <= x < 12)
        )
        for row in range(3)
    ]  # fmt: skip
    torch.testing.assert_close(evidence_distance(noise, evidence, masks, CENTRE), torch.tensor(by_hand))
    assert not evidence_distance(images, evidence, masks, CENTRE).any()


def test_blurred_evidence_is_compared_with_the_blurred_completion() -> None:
    corruption = CORRUPTIONS["blur"]
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    evidence, masks = corruption.apply(images, torch.empty(3, 0))
    torch.testing.assert_close(
        evidence_distance(images, evidence, masks, corruption), torch.zeros(3), atol=1e-4, rtol=0
    )
    assert (evidence_distance(images.flip(0) ** 2, evidence, masks, corruption) > 1).all()


def test_a_step_moves_every_parameter_and_leaves_global_randomness_alone() -> None:
    training, before_random = make(), torch.get_rng_state()
    parameters = [p for network in training.networks.networks().values() for p in network.parameters()]
    before = [p.detach().clone() for p in parameters]
    losses = training.step()
    assert set(losses) == {"critic", "patch_critic", "generator"}
    assert all(torch.isfinite(value) for value in losses.values())
    still = [new.numel() for old, new in zip(before, parameters, strict=True) if torch.equal(old, new)]
    assert still == [1, 1]  # the biases of the critics' scores cancel in the Wasserstein loss
    assert torch.equal(before_random, torch.get_rng_state())


def test_resuming_equals_an_uninterrupted_training() -> None:
    whole, killed = make(), make()
    for _ in range(3):
        whole.step()
    killed.step()
    saved = copy.deepcopy(killed.state())
    killed.step()  # what happens after the snapshot must not change it
    resumed = make(seed=1)
    resumed.load(saved)
    for _ in range(2):
        resumed.step()
    assert same(whole.state(), resumed.state())


def test_a_preparation_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    kept = replace(CPU, checkpoints=Checkpoints(tmp_path / "state.safetensors", interval_s=0))
    inpainting_state(dots(), CENTRE, pixels, replace(TINY, iterations=1), kept)
    resumed = inpainting_state(dots(), CENTRE, pixels, TINY, kept)
    assert same(resumed, inpainting_state(dots(), CENTRE, pixels, TINY, CPU))


@pytest.mark.parametrize(("weight", "wanted"), [(0.5, [8, 8]), (0.0, [])])
def test_features_are_asked_for_two_completions_of_each_image(weight: float, wanted: list[int]) -> None:
    asked: list[int] = []

    def features(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images

    training = make(replace(TINY, diversity_weight=weight), features=features)
    training.step()
    training.step()
    assert asked == wanted


def completions(settings: InpaintingSettings) -> Tensor:
    """Return 40 completions (40, 1, 16, 16) of one picture by a network trained with these settings."""
    networks = restore_inpainting(inpainting_state(dots(), CENTRE, pixels, settings, CPU), CPU)
    assert not any(
        p.requires_grad or network.training for network in networks.networks().values() for p in network.parameters()
    )
    evidence, masks = CENTRE.apply(dots(1), torch.empty(1, 0))
    completer = Completer(networks.generator, evidence, masks, tile=8)
    latents = CPU.rng("test").normal((40, settings.latent_dim))
    return completer(latents, torch.zeros(40, dtype=torch.int64))


def test_it_learns_what_is_hidden_and_that_it_may_be_several_things() -> None:
    settings = replace(TINY, width=4, critic_width=8, iterations=120, batch_size=8, learning_rate=4e-3)
    found = completions(replace(settings, diversity_weight=5.0))
    left, right = found[:, 0, 6:10, 4:8].mean(dim=(1, 2)), found[:, 0, 6:10, 8:12].mean(dim=(1, 2))
    around = found[:, 0, 4:12, 4:12].sum(dim=(1, 2)) - 16 * (left + right)
    assert float((left + right).mean()) > 0.7  # as bright as one square
    assert float(around.mean()) < 8.0  # of 32 pixels
    assert float((left - right).std()) > 0.2
    still = completions(replace(settings, diversity_weight=0.0))
    assert float(still.std(dim=0).mean()) < float(found.std(dim=0).mean())
