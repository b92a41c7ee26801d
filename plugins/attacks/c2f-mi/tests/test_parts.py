"""The parts of C2F-MI against independent float64 formulas: embedding, inverse network, populations."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mi_attack_c2f_mi.embedding import EmbeddingSettings, contrast_loss, embedding_state, restore_embedding
from mi_attack_c2f_mi.inverse import InverseSettings, aligned, inverse_state, restore_inverse
from mi_attack_c2f_mi.populations import answer_losses, best_members, bred, fading, neighbour_means
from micore.runtime import Checkpoints, Random, Runtime
from micore.testing.toys import anywhere, planted, spotted

SETTINGS = EmbeddingSettings(
    network="small-cnn", width=4, dims=8, iterations=6, batch_size=16, learning_rate=1e-3, temperature=0.5,
    crop_area=0.8, flip=None,
)  # fmt: skip
INVERSE = InverseSettings(
    kept=1, hidden=16, dropout=0.25, epochs=6, batch_size=16, learning_rate=1e-2, decay=0.8, decay_every=2
)


def runtime(**options: object) -> Runtime:
    return Runtime(device=torch.device("cpu"), **options)  # type: ignore[arg-type]


# the embedding ----------------------------------------------------------------------------------------------


def test_the_contrast_equals_a_loop_over_views() -> None:
    first, second = Random(0).normal((4, 3)), Random(1).normal((4, 3))
    rows = [row / row.norm() for row in torch.cat([first, second]).double()]
    losses = []
    for index, row in enumerate(rows):
        similar = [math.exp(float(row @ other) / 0.5) for other in rows]
        partner = similar[(index + 4) % 8]
        losses.append(-math.log(partner / (sum(similar) - similar[index])))
    assert contrast_loss(first, second, 0.5).item() == pytest.approx(sum(losses) / 8, rel=1e-5)


def test_two_views_of_one_image_are_nearer_than_other_images() -> None:
    """On images that were not trained on."""
    machine = runtime()
    state = embedding_state(anywhere(128, 16, Random(0)), None, replace(SETTINGS, width=8, iterations=60), machine)
    embedding = restore_embedding(state, machine)
    places = 0.2 + 0.6 * Random(1).uniform((40, 2))
    one, again = (embedding(spotted(places, 16, Random(seed))) for seed in (2, 3))
    torch.testing.assert_close(one.norm(dim=1), torch.ones(40))
    nearest = torch.cdist(one, again).argmin(dim=1)
    assert nearest.eq(torch.arange(40)).float().mean() > 0.3  # by chance 0.025


def test_labels_make_it_a_classifier() -> None:
    images, labels = planted(3, 20, 16, Random(0))
    state = embedding_state(images, labels, replace(SETTINGS, width=8, iterations=60, learning_rate=5e-3), runtime())
    logits = restore_embedding(state, runtime())(images)
    assert logits.shape == (60, 3)
    assert logits.argmax(dim=1).eq(labels).float().mean() > 0.8


def test_it_takes_images_of_any_size_and_gives_gradients() -> None:
    embedding = restore_embedding(embedding_state(anywhere(20, 12, Random(0)), None, SETTINGS, runtime()), runtime())
    large = Random(1).uniform((2, 3, 40, 40)).requires_grad_(True)
    embedding(large).square()[:, 0].sum().backward()
    assert large.grad is not None
    assert large.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in embedding.parameters())


# the inverse network ----------------------------------------------------------------------------------------


def test_answers_are_aligned_as_published() -> None:
    scores = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.0, 0.0, 1.0, 0.0]])
    raised = [math.log(0.7) + 50, math.log(0.2) + 50, 0.0, 0.0]
    length = math.hypot(*raised)
    assert aligned(scores, 2)[0].tolist() == pytest.approx([value / length for value in raised], rel=1e-5)
    assert aligned(scores, 100)[1].tolist() == [0, 0, 1, 0]
    assert aligned(scores, 1).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert aligned(torch.zeros(1, 4), 2).tolist() == [[0.0] * 4]


def test_the_inverse_of_one_score_is_the_mean_embedding_of_its_class() -> None:
    scores = torch.eye(3).repeat(40, 1) * 0.9 + 0.02
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]]).repeat(40, 1)
    embeddings = embeddings + 0.1 * Random(0).normal(embeddings.shape)
    network = restore_inverse(inverse_state(scores, embeddings, replace(INVERSE, epochs=80), runtime()), runtime())
    means = torch.stack([embeddings[label::3].mean(dim=0) for label in range(3)])
    torch.testing.assert_close(network(torch.eye(3)), means, rtol=0, atol=0.1)


class _Kill(BaseException):
    pass


class _Killing(Checkpoints):
    def __init__(self, path: Path, last: int) -> None:
        super().__init__(path, interval_s=0.0)
        self.left = last

    def offer(self, state: object) -> None:
        super().offer(state)  # type: ignore[arg-type]
        self.left -= 1
        if not self.left:
            raise _Kill


@pytest.mark.parametrize("labelled", [False, True])
def test_killed_trainings_go_on_bit_for_bit(tmp_path: Path, labelled: bool) -> None:
    images, labels = planted(3, 20, 16, Random(0))

    def embed(machine: Runtime) -> Tensor:
        state = embedding_state(images, labels if labelled else None, SETTINGS, machine)
        return restore_embedding(state, machine)(images)

    def invert(machine: Runtime) -> Tensor:
        state = inverse_state(torch.eye(3)[labels], images.flatten(1)[:, :5], INVERSE, machine)
        return restore_inverse(state, machine)(torch.eye(3))

    for name, work in (("embedding", embed), ("inverse", invert)):
        whole, path = work(runtime()), tmp_path / f"{name}.safetensors"
        with pytest.raises(_Kill):
            work(runtime(checkpoints=_Killing(path, 3)))
        assert torch.equal(work(runtime(checkpoints=Checkpoints(path, interval_s=1e9))), whole)


# populations ------------------------------------------------------------------------------------------------


def test_a_class_among_the_answers_costs_what_it_lacks() -> None:
    answers = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.8, 0.2], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    labels = torch.tensor([0, 0, 2, 0])
    assert answer_losses(answers, labels, None).tolist() == pytest.approx([0.4, 2.0, 2.0, 0.8])
    assert answer_losses(answers, labels, 2).tolist() == pytest.approx([0.4, 2.0, 2.0, 1.8])
    assert answer_losses(answers, labels, 1).tolist() == pytest.approx([0.4, 1.8, 1.5, 1.5])


def test_any_named_class_is_better_than_none() -> None:
    """Of two pictures whose class is not among the answers, that with less sure others is the better."""
    answers = torch.tensor([[1e-3, 0.999], [0.0, 0.4], [0.0, 0.9]])
    losses = answer_losses(answers, torch.zeros(3, dtype=torch.int64), None)
    assert losses[0] < losses[1] < losses[2]


def test_doubt_tells_apart_what_is_certain_to_the_last_digit() -> None:
    """Logits (20, 0) and (30, 0): 1 - p of both is 0 in float32; and a part of the scores never looks less sure."""
    whole = torch.tensor([[20.0, 0.0], [30.0, 0.0]]).softmax(dim=1)
    losses = answer_losses(whole, torch.zeros(2, dtype=torch.int64), None)
    assert losses.tolist() == pytest.approx([math.exp(-20), math.exp(-30)], rel=1e-4)
    part = torch.tensor([[0.9995, 0.0001, 0.0], [0.9985, 0.0001, 0.0], [1.0, 0.0, 0.0]])
    losses = answer_losses(part, torch.zeros(3, dtype=torch.int64), None)
    assert losses[2] < losses[0] < losses[1]


def test_neighbours_are_averaged_and_the_best_are_kept() -> None:
    codes = Random(0).normal((2, 4, 3))
    means = neighbour_means(codes)
    for place in range(3):
        torch.testing.assert_close(means[:, place], (codes[:, place] + codes[:, place + 1]) / 2)
    losses = torch.tensor([[0.5, torch.nan, 0.1], [torch.inf, 0.3, 0.2]])
    kept, known = best_members(means, losses, 2)
    assert torch.equal(kept[0], means[0, [2, 0]])
    assert torch.equal(kept[1], means[1, [2, 1]])
    assert known.tolist() == [pytest.approx([0.1, 0.5]), pytest.approx([0.2, 0.3])]


def test_further_members_equal_a_loop() -> None:
    members, fresh, throws = Random(0).normal((2, 4, 3)), Random(1).normal((2, 5, 3, 3)), Random(2).uniform((2, 5, 3))
    found = bred(members, throws, fresh).double()
    for row in range(2):
        for place in range(5):
            one, two, three = (members[row, int(throws[row, place, part] * 4)].double() for part in range(3))
            mixture = 0.25 * one + 0.25 * two + 0.5 * three
            expected = 0.7 * mixture + 0.3 * fresh[row, place].double().mean(dim=0)
            torch.testing.assert_close(found[row, place], expected, rtol=0, atol=1e-6)


def test_differences_fade_in_the_last_generations_as_published() -> None:
    scale = fading(0.1, 500, last=30, over=50)
    assert [scale(0), scale(469)] == [0.1, 0.1]
    assert [scale(470), scale(499)] == pytest.approx([0.1 * 30 / 50, 0.1 / 50])
