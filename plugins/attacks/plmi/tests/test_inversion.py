"""The search in latent space: progress, independence of rows, accounting, budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from mi_attack_plmi.inversion import BLOCK, Inversion, LatentSearch, view_draws
from mi_image.augment import Augmentation
from mi_image.conditional_gan import ConditionalGenerator
from micore.errors import BudgetExceeded
from micore.runtime import Random

VIEWS = Augmentation(flip=0)
RESTARTS, STEPS = 2, 6


class Setting:
    """A random generator and a linear target over three classes."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.generator = ConditionalGenerator(3, latent_dim=8, size=8, channels=1, base=4)
            self.target = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        for network in (self.generator, self.target):
            network.eval().requires_grad_(False)

    def invert(self, classes: list[int], steps: int = STEPS) -> Inversion:
        labels = torch.tensor(classes).repeat_interleave(RESTARTS)
        latents = torch.cat([Random(label).normal((RESTARTS, 8)) for label in classes])
        draw = view_draws([Random(10 + label) for label in classes], RESTARTS, 2, VIEWS)
        return LatentSearch(self.generator, self.target, VIEWS, steps).run(latents, labels, draw)


def margins(setting: Setting, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the margins in float64, without top-k."""
    logits = setting.target(images).double()
    rivals = logits.masked_fill(nn.functional.one_hot(labels, 3).bool(), -torch.inf)
    return rivals.amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


def test_search_lowers_the_margin_of_every_row() -> None:
    setting = Setting()
    found, start = setting.invert([0, 1, 2], steps=40), setting.invert([0, 1, 2], steps=0)
    assert (found.history[-1] < found.history[0]).all()
    assert (found.confidences > start.confidences).all()
    assert found.complete
    assert start.complete


def test_loss_is_the_sum_of_the_margins_of_the_views() -> None:
    setting, labels = Setting(), torch.tensor([2, 0])
    latents, numbers = Random(0).normal((2, 8)), Random(1).uniform((3, 2, VIEWS.n_numbers))
    search = LatentSearch(setting.generator, setting.target, VIEWS)
    images = setting.generator(latents, labels)
    expected = sum(margins(setting, VIEWS.apply(images, view), labels) for view in numbers)
    torch.testing.assert_close(search.losses(latents, labels, numbers).double(), expected, rtol=0, atol=1e-5)


def test_result_belongs_to_its_latents() -> None:
    setting = Setting()
    found = setting.invert([2, 0])
    labels = torch.tensor([2, 2, 0, 0])
    torch.testing.assert_close(setting.generator(found.latents, labels), found.images)
    confidence = setting.target(found.images).softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(found.confidences, confidence)
    assert not found.latents.requires_grad
    assert all(parameter.grad is None for parameter in setting.target.parameters())


def test_a_case_does_not_depend_on_the_others() -> None:
    together, alone = Setting().invert([0, 1, 2]), Setting().invert([1])
    torch.testing.assert_close(together.latents[2:4], alone.latents, rtol=0, atol=1e-5)


def test_restarts_differ() -> None:
    found = Setting().invert([1])
    assert not torch.allclose(found.latents[0], found.latents[1])


def test_numbers_are_drawn_in_whole_blocks() -> None:
    asked: list[int] = []
    labels, latents = torch.tensor([1, 1]), Random(0).normal((2, 8))
    setting, draw = Setting(), view_draws([Random(3)], RESTARTS, 2, VIEWS)

    def counted(n_steps: int) -> Tensor:
        asked.append(n_steps)
        return draw(n_steps)

    LatentSearch(setting.generator, setting.target, VIEWS, BLOCK + 1).run(latents, labels, counted)
    assert asked == [BLOCK, BLOCK]


def test_every_sample_is_spent_once() -> None:
    setting, rows, passes_spent = Setting(), [], []

    def count(images: Tensor) -> Tensor:
        rows.append(len(images))
        return setting.target(images)

    @contextmanager
    def spend(passes: int) -> Iterator[None]:
        passes_spent.append(passes)
        yield

    draw, latents = view_draws([Random(3)], RESTARTS, 2, VIEWS), Random(0).normal((RESTARTS, 8))
    LatentSearch(setting.generator, count, VIEWS, 3, spend=spend).run(latents, torch.tensor([1, 1]), draw)
    assert rows == [4, 4, 4, 2]
    assert passes_spent == [2, 2, 2, 1]


@pytest.mark.parametrize("allowed", [0, 3])
def test_what_was_found_within_the_budget_is_kept(allowed: int) -> None:
    setting, asked = Setting(), []

    def limited(images: Tensor) -> Tensor:
        asked.append(len(images))
        if len(asked) > allowed:
            raise BudgetExceeded("spent")
        return setting.target(images)

    labels, latents = torch.tensor([1, 1]), Random(1).normal((RESTARTS, 8))
    draw = view_draws([Random(11)], RESTARTS, 2, VIEWS)
    found = LatentSearch(setting.generator, limited, VIEWS, STEPS).run(latents, labels, draw)
    assert not found.complete
    torch.testing.assert_close(found.latents, Setting().invert([1], steps=allowed).latents)
    assert (found.confidences == 0).all()
