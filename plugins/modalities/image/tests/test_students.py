"""Students of a target: the loss, resuming bit for bit, and that they come to answer like it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mi_image.answers import labels_and_mean_features, soft_labels
from mi_image.learners import NETWORKS
from mi_image.students import StudentSettings, distillation_loss, restore_students, student_states
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.runtime import Checkpoints, Runtime
from micore.target import Target
from micore.testing.counting import same
from micore.threat import Access, Ledger, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1)
SMALL = StudentSettings(network="small-cnn", widths=(2, 3), epochs=3, batch_size=8, learning_rate=0.05)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.rand(20, 1, 16, 16, generator=source(0))
LABELS = torch.randn(20, 3, generator=source(1)).softmax(dim=1)


def test_the_loss_is_the_divergence_of_the_student_from_the_target() -> None:
    logits = torch.randn(4, 3, generator=source(2), dtype=torch.float64)
    shares = torch.randn(4, 3, generator=source(3), dtype=torch.float64).softmax(dim=1)
    expected = (shares * (shares.log() - logits.softmax(dim=1).log())).sum() / 4
    torch.testing.assert_close(distillation_loss(logits, shares), expected)
    assert float(distillation_loss(shares.log() + 5, shares)) == pytest.approx(0, abs=1e-12)


class _KilledError(BaseException):
    pass


class _Killing(Checkpoints):
    """Saves every state and kills after the second."""

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        if state()["done"] == 2:
            raise _KilledError


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole = student_states(IMAGES, LABELS, SMALL, CPU)
    with contextlib.suppress(_KilledError):
        student_states(IMAGES, LABELS, SMALL, CPU.with_checkpoints(_Killing(path, 0.0)))
    assert path.exists()
    assert same(student_states(IMAGES, LABELS, SMALL, CPU.with_checkpoints(Checkpoints(path, 1e9))), whole)


def test_global_generators_are_left_alone_and_not_read() -> None:
    before = torch.get_rng_state()
    first = student_states(IMAGES, LABELS, SMALL, CPU)
    restore_students(first, CPU)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert same(first, student_states(IMAGES, LABELS, SMALL, CPU))
    torch.set_rng_state(before)


@pytest.mark.parametrize("network", NETWORKS)
def test_restored_students_are_frozen_and_take_canonical_images(network: str) -> None:
    settings = StudentSettings(network=network, widths=(2, 4), epochs=1, batch_size=19)  # one image is left over
    students = restore_students(student_states(IMAGES, LABELS, settings, CPU), CPU)
    assert len(students) == 2
    for student in students:
        assert not student.training
        assert not any(p.requires_grad for p in student.parameters())
        assert student(IMAGES).shape == (20, 3)
    assert not torch.equal(students[0](IMAGES), students[1](IMAGES))


def test_the_rate_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    original = torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *arguments: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    settings = StudentSettings(
        network="small-cnn", widths=(2,), epochs=5, batch_size=20, learning_rate=0.8, halve_every=2
    )
    student_states(IMAGES, LABELS, settings, CPU)
    assert rates == [0.8, 0.8, 0.4, 0.4, 0.2]


# a target to learn from -----------------------------------------------------------------------------------


def target(module: nn.Module) -> Target:
    return Target(
        module, access=Access.WHITE_BOX, adapter=lambda images: images - 0.5,
        input_spec=InputSpec(shape=(1, 16, 16)), classes=["dark", "bright"], ledger=Ledger(), runtime=CPU,
    )  # fmt: skip


def bright_or_dark() -> nn.Module:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([[-2.0], [2.0]]).expand(2, 4))  # type: ignore[operator, union-attr]
        module[2].bias.zero_()  # type: ignore[operator, union-attr]
    return module


def test_answers_are_asked_for_once_and_are_the_targets() -> None:
    images = torch.rand(300, 1, 16, 16, generator=source(4))
    attacked, module = target(bright_or_dark()), bright_or_dark()
    labels, mean = labels_and_mean_features(attacked, images, CPU)
    assert attacked.ledger.shared == Spending(queries=300)
    torch.testing.assert_close(labels, module(images - 0.5).softmax(dim=1))
    torch.testing.assert_close(mean, module[:2](images - 0.5).mean(dim=0))  # type: ignore[index]
    torch.testing.assert_close(soft_labels(attacked, images, CPU), labels)
    assert attacked.ledger.shared == Spending(queries=600)


def test_a_target_without_features_is_refused_in_words() -> None:
    with pytest.raises(ModelError, match="no linear classification layer"):
        labels_and_mean_features(target(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())), IMAGES, CPU)


def test_students_come_to_answer_like_the_target() -> None:
    shade = torch.rand(120, 1, 1, 1, generator=source(5))
    images = (shade + 0.3 * torch.rand(120, 1, 16, 16, generator=source(6)) - 0.15).clamp(0, 1)
    labels = soft_labels(target(bright_or_dark()), images, CPU)
    settings = StudentSettings(network="small-cnn", widths=(3, 4), epochs=15, batch_size=16, learning_rate=0.05)
    for student in restore_students(student_states(images[:80], labels[:80], settings, CPU), CPU):
        gap = (student(images[80:]).softmax(dim=1) - labels[80:]).abs().mean()
        assert gap < 0.08, float(gap)
