"""The negative control: it never asks the target, and shows no class more than another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn

from mi_attack_prior_samples.attack import PriorSamples
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import preset_config
from micore.contracts import Attack, Case, HasPrior, Prepared, Reconstruction
from micore.errors import DataError
from micore.runtime import Checkpoints, Progress, Runtime
from micore.target import Target
from micore.testing.lab import holdout_accuracy, restored, train_toy
from micore.threat import Access, Ledger, Spending

TOY, IMAGES = image_toy(), ImageModality()
CASES = IMAGES.cases("class", None, TOY.dataset.classes, None)


class Unaskable(nn.Module):
    """A target that fails when it is asked anything."""

    def forward(self, images: Tensor) -> NoReturn:
        raise AssertionError("the control asked the target")


def attack(**options: object) -> PriorSamples:
    return PriorSamples(preset_config(PriorSamples, "smoke", options, "prior-samples"))


def target(runtime: Runtime) -> Target:
    return Target(
        Unaskable(), access=Access.WHITE_BOX, adapter=IMAGES.adapter(TOY.dataset.input),
        input_spec=TOY.dataset.input, classes=TOY.dataset.classes, ledger=Ledger(), runtime=runtime,
    )  # fmt: skip


def cpu(**others: object) -> Runtime:
    return Runtime(device=torch.device("cpu"), **others)  # type: ignore[arg-type]


def draw(control: PriorSamples, prepared: Prepared, cases: list[Case], **others: object) -> dict[str, Reconstruction]:
    runtime = cpu(**others)
    return {item.case.id: item for item in control.run(target(runtime), cases, prepared, runtime)}


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return attack().prepare(target(cpu()), TOY.dataset.split("public"), cpu())


def test_the_target_is_never_asked() -> None:
    runtime, control = cpu(), attack()
    assert isinstance(control, Attack)
    assert isinstance(control, HasPrior)
    unaskable = target(runtime)
    ready = control.prepare(unaskable, TOY.dataset.split("public"), runtime)
    found = list(control.run(unaskable, CASES, ready, runtime))
    assert [item.case for item in found] == CASES
    assert unaskable.ledger.total == unaskable.ledger.shared == Spending()
    assert not unaskable.ledger.cases
    assert unaskable.ledger.used_access is None


def test_what_it_gives_are_images(prepared: Prepared) -> None:
    for item in draw(attack(restarts=5), prepared, CASES).values():
        assert item.samples.shape == (5, *TOY.dataset.input.shape)
        assert TOY.problem(item.samples) is None
        assert item.scores.tolist() == [0.0] * 5
        assert item.complete
        assert len(item.samples.flatten(1).unique(dim=0)) == 5


def test_every_case_has_a_stream_of_its_own(prepared: Prepared) -> None:
    together, alone = draw(attack(), prepared, CASES), draw(attack(), prepared, [CASES[2]])
    assert torch.equal(together["class-2"].samples, alone["class-2"].samples)
    for other in ("class-0", "class-1", "class-3"):
        assert not torch.equal(together["class-2"].samples, together[other].samples)
    backwards = draw(attack(), prepared, CASES[::-1])
    assert all(torch.equal(backwards[name].samples, item.samples) for name, item in together.items())
    other_seed = draw(attack(), prepared, CASES, seed=1)
    assert not torch.equal(together["class-2"].samples, other_seed["class-2"].samples)


def test_no_class_is_recognised_better_than_by_chance() -> None:
    """Its samples do not depend on the label, so the mean over K classes is at most 1/K in expectation."""
    n, runtime = 60, cpu()
    control = attack(iterations=150, restarts=n)
    ready = control.prepare(target(runtime), TOY.dataset.split("public"), runtime)
    found = draw(control, ready, CASES)
    judge = restored(TOY, train_toy(TOY, IMAGES, "evaluator"), "evaluator").eval()
    assert holdout_accuracy(TOY, IMAGES, judge, runtime) > 0.9
    adapter = IMAGES.adapter(TOY.dataset.input)
    with torch.no_grad():
        taken = {name: judge(adapter(item.samples)).argmax(dim=1) for name, item in found.items()}
    right = sum(float((taken[case.id] == case.label).double().mean()) for case in CASES) / len(CASES)
    wrong = sum(float((taken[case.id] == (case.label + 1) % 4).double().mean()) for case in CASES) / len(CASES)  # type: ignore[operator]
    three_deviations = 3 * (0.25 * 0.75 / (n * len(CASES))) ** 0.5
    assert right < 0.25 + three_deviations
    assert abs(right - wrong) < 2 * three_deviations
    contrasts = torch.cat([TOY.judge(item.case, item.samples) for item in found.values()])
    assert abs(float(contrasts.mean())) < 0.1  # the planted templates say the same, without any model


class Interruption(Exception):  # noqa: N818
    """Stands for a killed process."""


class Interrupting(Progress):
    """Stop the work after so many steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        def report(done: int) -> None:
            if done == self.after:
                raise Interruption

        yield report


def test_a_killed_preparation_goes_on_bit_for_bit(prepared: Prepared, tmp_path: Path) -> None:
    places = [Checkpoints(tmp_path / "state.safetensors", interval_s=0) for _ in range(2)]
    public, killed = TOY.dataset.split("public"), cpu(checkpoints=places[0], progress=Interrupting(8))
    with pytest.raises(Interruption):
        attack().prepare(target(killed), public, killed)
    saved = places[1].load()
    assert saved is not None
    assert saved["iteration"] == 7
    resumed = cpu(checkpoints=places[1])
    again = attack().prepare(target(resumed), public, resumed)
    assert again.state["shape"] == prepared.state["shape"]
    for name, tensor in prepared.state["generator"].items():
        assert torch.equal(tensor, again.state["generator"][name]), name


def test_what_is_missing_is_said() -> None:
    runtime = cpu()
    with pytest.raises(DataError, match="needs public images"):
        attack().prepare(target(runtime), None, runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(attack().run(target(runtime), CASES, None, runtime))
