"""Surrogates: they come to answer like the target, follow the published schedule, and resume bit for bit."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_image.augment import Augmentation
from mi_image.learners import Learners, build_networks
from mi_image.students import restore_students
from mi_image.surrogates import SurrogateSettings, _take_step, surrogate_states
from micore.runtime import Checkpoints, Runtime
from micore.testing.counting import same

CPU = Runtime(device=torch.device("cpu"), seed=1)
SMALL = SurrogateSettings(network="small-cnn", widths=(2, 3), steps=6, batch_size=8, learning_rate=0.05)
VIEWS = Augmentation(flip=0)
ARGUMENTS = {"network": "small-cnn", "widths": [2], "n_classes": 3, "channels": 1, "size": 16}


def squares(n: int) -> tuple[Tensor, Tensor]:
    """Return noisy images (n, 1, 16, 16) as bytes with a bright square at a place for each of three classes."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    images = 0.3 * torch.rand(n, 1, 16, 16, generator=source)
    for row, label in enumerate(labels.tolist()):
        images[row, :, 2 + 4 * label : 6 + 4 * label, 5:11] += 0.6
    return (images * 255).round().to(torch.uint8), labels


IMAGES, LABELS = squares(60)


def test_they_come_to_answer_like_the_target() -> None:
    settings = replace(SMALL, widths=(4, 6), steps=60, batch_size=16)
    state = surrogate_states(IMAGES, LABELS, 3, VIEWS, settings, CPU)
    for network in restore_students(state, CPU):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        told = network(IMAGES.float() / 255).argmax(dim=1)
        assert (told == LABELS).double().mean() > 0.95


def test_a_step_is_half_the_loss_of_the_images_and_half_of_their_views_at_the_cosines_rate() -> None:
    """By hand in float64, from the same stream: gradient, weight decay, momentum."""
    settings = replace(SMALL, widths=(2,), steps=4, batch_size=8, learning_rate=0.1, weight_decay=5e-4)
    training = Learners(build_networks(ARGUMENTS, CPU, "surrogates"), CPU, momentum=0.9, weight_decay=5e-4)
    twin, velocity = copy.deepcopy(training.networks[0]).double(), torch.zeros(3, 8, dtype=torch.float64)
    for step in range(2):
        rng = CPU.rng("surrogates", "batch", step)
        rows = rng.integers(60, (8,))
        images = IMAGES[rows].float() / 255
        seen = VIEWS.apply(images, VIEWS.draw(rng, 8))
        logits = twin(torch.cat([images, seen]).double())
        plain, viewed = (functional.cross_entropy(half, LABELS[rows]) for half in logits.chunk(2))
        parameters = list(twin.parameters())
        gradients = torch.autograd.grad((plain + viewed) / 2, parameters)
        rate = 0.1 * (1 + math.cos(math.pi * step / 4)) / 2
        head = twin.head.weight
        slope = next(g for p, g in zip(parameters, gradients, strict=True) if p is head) + 5e-4 * head.detach()
        velocity = slope if step == 0 else 0.9 * velocity + slope
        expected = head.detach() - rate * velocity
        _take_step(training, IMAGES, LABELS, VIEWS, settings, step)
        moved = training.networks[0].head.weight.detach().double()
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5)
        twin = copy.deepcopy(training.networks[0]).double()


class _KilledError(BaseException):
    pass


class _Killing(Checkpoints):
    """Saves every state and kills after the third."""

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        if state()["done"] == 3:
            raise _KilledError


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole = surrogate_states(IMAGES, LABELS, 3, VIEWS, SMALL, CPU)
    with contextlib.suppress(_KilledError):
        surrogate_states(IMAGES, LABELS, 3, VIEWS, SMALL, CPU.with_checkpoints(_Killing(path, 0.0)))
    again = surrogate_states(IMAGES, LABELS, 3, VIEWS, SMALL, CPU.with_checkpoints(Checkpoints(path, 1e9)))
    assert same(dict(whole), dict(again))


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.get_rng_state()
    surrogate_states(IMAGES, LABELS, 3, VIEWS, SMALL, CPU)
    assert torch.equal(before, torch.get_rng_state())
