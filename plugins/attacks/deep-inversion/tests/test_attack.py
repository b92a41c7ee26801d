"""DeepInversion as a run calls it: it inverts a trained target without data, and spends what it said it would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_attack_deep_inversion.attack import DeepInversion
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import preset_config
from micore.contracts import Attack, Case, HasForecast, Prepared, Reconstruction
from micore.errors import BudgetExceeded, DataError, ModelError
from micore.inputs import InputSpec
from micore.kit.training import TrainingConfig
from micore.runs.subjects import wrong_label
from micore.runtime import Checkpoints, Runtime
from micore.target import Target
from micore.testing.lab import holdout_accuracy, restored, train_toy
from micore.threat import Access, Budget, Ledger, Spending

IMAGES, CPU = ImageModality(), Runtime(device=torch.device("cpu"), seed=1)


def attack(preset: str = "smoke", **options: object) -> DeepInversion:
    return DeepInversion(preset_config(DeepInversion, preset, options, "deep-inversion"))


def target_of(module: nn.Module, spec: InputSpec, n_classes: int, budget: Budget | None = None) -> Target:
    return Target(
        module, access=Access.WHITE_BOX, adapter=IMAGES.adapter(spec), input_spec=spec,
        classes=[str(label) for label in range(n_classes)], ledger=Ledger(budget=budget or Budget()), runtime=CPU,
    )  # fmt: skip


# a target that can be inverted ----------------------------------------------------------------------------


class Digits:
    """A target of the digits 0-4 and a judge that knows all ten."""

    setting = replace(
        image_toy(),
        dataset=open_digits(None),
        training=TrainingConfig(epochs=8, learning_rate=5e-3, augment="none"),
    )
    attack = attack("default", restarts=4, companions=16, low_steps=100, steps=100)

    def __init__(self) -> None:
        dataset = self.setting.dataset
        self.adapter = IMAGES.adapter(dataset.input)
        self.cases = IMAGES.cases("class", None, dataset.classes, None)
        self.module = restored(self.setting, train_toy(self.setting, IMAGES))
        self.judge = restored(self.setting, train_toy(self.setting, IMAGES, "evaluator"), "evaluator").eval()
        self.public = dataset.split("public").take(range(len(dataset.split("public"))))

    def target(self, budget: Budget | None = None) -> Target:
        return target_of(self.module, self.setting.dataset.input, 5, budget)

    def attacked(self, mounted: DeepInversion) -> tuple[Target, list[Reconstruction]]:
        target = self.target()
        prepared = mounted.prepare(target, None, CPU)
        found = list(mounted.run(target, self.cases, prepared, CPU))
        return target, sorted(found, key=lambda item: item.case.label or 0)

    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.attacked(self.attack)

    @torch.no_grad()
    def recognised(self, found: Sequence[Reconstruction]) -> float:
        """Return the share that the judge takes for their class."""
        hits = [self.judge(self.adapter(item.samples)).argmax(dim=1) == item.case.label for item in found]
        return float(torch.cat(hits).double().mean())


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_it_recovers_without_data_what_public_images_do_not_show(digits: Digits) -> None:
    assert holdout_accuracy(digits.setting, IMAGES, digits.module, CPU) > 0.95
    assert holdout_accuracy(digits.setting, IMAGES, digits.judge, CPU) > 0.95
    _, found = digits.whole_run
    public = [Reconstruction(case=case, samples=digits.public, scores=torch.zeros(1)) for case in digits.cases]
    floors = {"public": public, "wrong-label": wrong_label(found, len(digits.cases))}
    measured = {name: digits.recognised(items) for name, items in floors.items()}
    value, highest = digits.recognised(found), max(measured.values())
    assert value > max(2 * highest, highest + 0.3), (value, measured)


def test_groups_of_one_class_cannot_match_the_statistics_of_all(digits: Digits) -> None:
    """Why a group has companions: its own class alone would leave the target unsure and the judge at a loss."""
    alone = attack("default", restarts=8, companions=0, low_steps=100, steps=100)
    _, found = digits.attacked(alone)
    _, mixed = digits.whole_run
    assert digits.recognised(found) < digits.recognised(mixed) - 0.2


def test_it_spends_what_it_forecast(digits: Digits) -> None:
    target, found = digits.whole_run
    forecast = digits.attack.forecast(target.n_classes, 0)
    assert target.ledger.shared == forecast.preparation == Spending()
    assert target.ledger.cases == {case.id: forecast.per_case for case in digits.cases}
    assert forecast.per_case == Spending(queries=20 * 200 + 4, gradients=20 * 200)
    assert all(item.complete for item in found)


def test_images_come_best_first_by_the_targets_confidence(digits: Digits) -> None:
    target, found = digits.whole_run
    for item in found:
        assert item.samples.shape == (4, 1, 16, 16)
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = target.scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
        assert digits.setting.problem(item.samples) is None
        assert item.history["loss"][-1] < item.history["loss"][0]


def test_a_budget_that_ends_leaves_what_was_found(digits: Digits) -> None:
    target, found = digits.target(Budget(queries=20 * 250 + 7)), []
    with pytest.raises(BudgetExceeded, match="during the search"):
        found.extend(digits.attack.run(target, digits.cases, None, CPU))
    assert [item.case.label for item in found] == [0, 1, 2]  # the first halves of three, one group at a time
    assert not any(item.complete for item in found)
    assert all(digits.setting.problem(item.samples) is None for item in found)
    assert target.ledger.total.queries == 20 * 250  # seven are not enough for a last look


# groups ---------------------------------------------------------------------------------------------------

SPEC = InputSpec(shape=(1, 16, 16), mean=(0.5,), std=(0.5,))
TINY = {"restarts": 2, "companions": 6, "low_steps": 2, "steps": 3}


def tiny(n_classes: int = 3, budget: Budget | None = None, size: int = 16) -> Target:
    with CPU.seeded("tiny"):
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (size - 2) ** 2, n_classes)
        )
    return target_of(module, replace(SPEC, shape=(1, size, size)), n_classes, budget)


def case(label: int) -> Case:
    return Case(id=f"class-{label}", goal="class", label=label)


def test_companions_are_of_all_other_classes_alike() -> None:
    for label in range(3):
        labels = attack(**TINY)._labels(case(label), 3, CPU)
        assert labels[:2].tolist() == [label] * 2
        assert labels[2:].bincount(minlength=3).tolist() == [0 if other == label else 3 for other in range(3)]
    many = attack(**TINY)._labels(case(7), 100, CPU)[2:]
    assert len(set(many.tolist())) == 6
    assert 7 not in many
    assert not torch.equal(many, attack(**TINY)._labels(case(8), 100, CPU)[2:])


def test_a_target_of_one_class_has_no_companions() -> None:
    target, mounted = tiny(1), attack(**TINY)
    (found,) = mounted.run(target, [case(0)], None, CPU)
    assert len(found.samples) == 2
    assert target.ledger.cases["class-0"] == mounted.forecast(1, 0).per_case


def test_a_target_without_statistics_is_refused_before_any_query() -> None:
    target = target_of(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), SPEC, 3)
    with pytest.raises(ModelError, match="without BatchNorm2d layers") as caught:
        attack().prepare(target, None, CPU)
    assert "mi-face" in (caught.value.hint or "")
    assert target.ledger.total == Spending()


# the adaptive variant -------------------------------------------------------------------------------------

ADAPTIVE: Mapping[str, Any] = {
    **TINY, "competition_weight": 0.2, "student_rounds": 2, "student_images": 7, "student_width": 2,
    "student_epochs": 3,
}  # fmt: skip


def test_the_student_is_paid_for_as_forecast_and_changes_the_images() -> None:
    target, mounted = tiny(), attack(**ADAPTIVE)
    prepared = mounted.prepare(target, None, CPU)
    forecast = mounted.forecast(3, 0)
    assert target.ledger.shared == forecast.preparation
    assert target.ledger.cases == {}
    images = 2 * 3 * 8  # rounds, groups, images of a group
    assert forecast.preparation == Spending(queries=images * (5 + 1), gradients=images * 5)
    found = list(mounted.run(target, [case(0)], prepared, CPU))
    plain = list(attack(**TINY).run(tiny(), [case(0)], None, CPU))
    assert not torch.equal(found[0].samples, plain[0].samples)
    with pytest.raises(DataError, match="not prepared"):
        list(mounted.run(target, [case(0)], None, CPU))


class KilledError(BaseException):
    """Stands for a kill."""


class Killing(Checkpoints):
    """Saves every state, and kills the work at one of them."""

    def __init__(self, path: Path, last: int) -> None:
        super().__init__(path, interval_s=0.0)
        self.left = last

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        self.left -= 1
        if self.left == 0:
            raise KilledError


def weights(prepared: Prepared | None) -> dict[str, Tensor]:
    assert prepared is not None
    return dict(prepared.state["student"]["weights"][0])


@pytest.mark.parametrize("last", [1, 3, 5, 7])
def test_a_student_that_was_killed_goes_on(tmp_path: Path, last: int) -> None:
    whole, path = weights(attack(**ADAPTIVE).prepare(tiny(), None, CPU)), tmp_path / "checkpoint.safetensors"
    with pytest.raises(KilledError):
        attack(**ADAPTIVE).prepare(tiny(), None, CPU.with_checkpoints(Killing(path, last)))
    target = tiny()
    resumed = weights(attack(**ADAPTIVE).prepare(target, None, CPU.with_checkpoints(Checkpoints(path))))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert target.ledger.total.queries == (24 * 6 if last < 6 else 0)  # a stage that was done is not paid twice


def test_a_budget_that_ends_before_the_student_is_told() -> None:
    with pytest.raises(BudgetExceeded, match="student"):
        attack(**ADAPTIVE).prepare(tiny(budget=Budget(queries=30)), None, CPU)


def test_images_too_small_for_a_student_are_told() -> None:
    with pytest.raises(ModelError, match="too small"):
        attack(**ADAPTIVE).prepare(tiny(size=8), None, CPU)


def test_it_is_an_attack_with_a_forecast() -> None:
    assert isinstance(attack(), Attack)
    assert isinstance(attack(), HasForecast)
    assert attack("paper").config.group_size == 84
    assert attack("paper-cifar").config.group_size == 256
