"""LOMMA as a run calls it: both bases and all variants, on a target that can be inverted and on the toy problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mi_attack_lomma.attack import LogitModelAugmented
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import preset_config
from micore.contracts import Attack, Case, HasForecast, HasGenerator, HasPrior, Prepared, Reconstruction, Split, Subject
from micore.errors import DataError, MiError, ModelError
from micore.inputs import InputSpec
from micore.kit.measuring import Figure, Rows, measure
from micore.kit.training import TrainingConfig
from micore.registry import Registry
from micore.runs.subjects import sample_prior, wrong_label
from micore.runtime import Runtime
from micore.shelf import Shelf
from micore.target import Target
from micore.testing.attack_bench import AttackBench
from micore.testing.checks_attack import (
    beats_the_baseline,
    case_alone_equals_case_among_others,
    interrupted_preparation_resumes,
    prior_samples_are_valid,
    smoke_is_quick,
)
from micore.testing.checks_threat import ledger_is_complete
from micore.testing.counting import same
from micore.testing.lab import Lab, holdout_accuracy, restored, train_toy
from micore.threat import Access, Ledger, Spending

IMAGES, CPU = ImageModality(), Runtime(device=torch.device("cpu"), seed=1, tile=16)
VARIANTS = ("baseline", "augmented", "logit", "full")
# The default preset with a narrower GAN that takes larger steps, and a shorter search, to fit in 20 s.
QUICK = {
    "width": 12, "iterations": 400, "gan_learning_rate": 4e-4, "student_epochs": 8,
    "student_widths": (8, 12), "steps": 150, "learning_rate": 0.05, "gaussians": 3, "draws": 2,
}  # fmt: skip


def attack(preset: str = "smoke", **options: object) -> LogitModelAugmented:
    return LogitModelAugmented(preset_config(LogitModelAugmented, preset, options, "lomma"))


CASE = Case(id="class-1", goal="class", label=1)
TINY = {
    "iterations": 1, "student_epochs": 1, "student_network": "small-cnn", "student_widths": (2,), "steps": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Few:
    """The first images of a split."""

    split: Split
    labels: None = None

    def __len__(self) -> int:
        return 40

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        images: Tensor = self.split.take(indices)
        return images


# a target that can be inverted ----------------------------------------------------------------------------


class Digits:
    """A target of the digits 0-4, an adversary with pictures of 5-9, a judge that knows all ten."""

    setting = replace(
        image_toy(), dataset=open_digits(None), training=TrainingConfig(epochs=8, learning_rate=5e-3, augment="none")
    )
    attack = attack("default", **QUICK)

    def __init__(self) -> None:
        self.dataset = self.setting.dataset
        self.adapter = IMAGES.adapter(self.dataset.input)
        self.cases = IMAGES.cases("class", None, self.dataset.classes, None)
        self.module = restored(self.setting, train_toy(self.setting, IMAGES))
        self.judge = restored(self.setting, train_toy(self.setting, IMAGES, "evaluator"), "evaluator").eval()
        self.public = self.dataset.split("public")

    def target(self) -> Target:
        return Target(
            self.module, access=Access.WHITE_BOX, adapter=self.adapter, input_spec=self.dataset.input,
            classes=self.dataset.classes, ledger=Ledger(), runtime=CPU,
        )  # fmt: skip

    @cached_property
    def whole_run(self) -> tuple[Target, Prepared, list[Reconstruction]]:
        target = self.target()
        prepared = self.attack.prepare(target, self.public, CPU)
        found = list(self.attack.run(target, self.cases, prepared, CPU))
        return target, prepared, sorted(found, key=lambda item: item.case.label or 0)

    @torch.no_grad()
    def recognised(self, name: str, found: Sequence[Reconstruction]) -> tuple[float, float]:
        """Return the share that the judge takes for their class, with the lower end of its interval over classes."""
        rows = Rows.of(Subject(name=name, reconstructions=found))
        hits = self.judge(self.adapter(torch.cat(rows.samples))).argmax(dim=1) == rows.labels
        item = measure(Figure("accuracy", hits.double(), "share", "up"), rows, "judge@0")
        assert item.interval is not None
        return item.value, item.interval.low


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_it_recovers_what_its_prior_does_not_show(digits: Digits) -> None:
    assert holdout_accuracy(digits.setting, IMAGES, digits.module, CPU) > 0.95
    assert holdout_accuracy(digits.setting, IMAGES, digits.judge, CPU) > 0.95
    _, prepared, found = digits.whole_run
    value, low = digits.recognised("attack", found)
    floors = {
        "prior-samples": sample_prior(digits.attack.prior(prepared, CPU), found, CPU),
        "wrong-label": wrong_label(found, len(digits.cases)),
    }
    measured = {name: digits.recognised(name, items)[0] for name, items in floors.items()}
    assert value > max(2 * max(measured.values()), max(measured.values()) + 0.15), (value, measured)
    assert low > measured["prior-samples"], (low, measured)


def test_it_spends_what_it_forecast(digits: Digits) -> None:
    target, _, found = digits.whole_run
    forecast = digits.attack.forecast(target.n_classes, len(digits.public))
    assert target.ledger.shared == forecast.preparation == Spending(queries=len(digits.public))
    assert target.ledger.cases == {case.id: forecast.per_case for case in digits.cases}
    assert all(item.complete for item in found)


def test_variants_share_the_gan_and_only_some_need_students(digits: Digits, tmp_path: Path) -> None:
    runtime, public = replace(CPU, shelf=Shelf(tmp_path)), Few(digits.public)
    prepared, made = {}, []
    for variant in VARIANTS:
        prepared[variant] = attack(**TINY, variant=variant).prepare(digits.target(), public, runtime).state
        made.append(len(list(tmp_path.iterdir())))
    assert made == [1, 2, 2, 2]  # a GAN, then students
    assert same(prepared["baseline"], prepared["logit"])
    assert same(prepared["augmented"], prepared["full"])
    assert prepared["full"].keys() - prepared["logit"].keys() == {"students"}


def test_variants_differ(digits: Digits) -> None:
    prepared = attack(**TINY).prepare(digits.target(), Few(digits.public), CPU)
    found = {}
    for variant in VARIANTS:
        target, short = digits.target(), attack(**{**TINY, "variant": variant, "steps": 20})
        (item,) = short.run(target, digits.cases[:1], prepared, CPU)
        found[variant] = item.samples
        assert target.ledger.cases["class-0"] == short.forecast(5, 0).per_case
    assert len({tuple(samples.flatten().tolist()) for samples in found.values()}) == len(VARIANTS)


# the other base, on the toy problem -----------------------------------------------------------------------


def test_on_gmi_it_keeps_the_contract_of_attacks_too() -> None:
    registry = Registry.discover()
    bench = AttackBench(registry, registry.find("attack", "lomma"), Lab(registry), {"base": "gmi"})
    case_alone_equals_case_among_others(bench)
    interrupted_preparation_resumes(bench)
    prior_samples_are_valid(bench)
    ledger_is_complete(bench)
    beats_the_baseline(bench)
    smoke_is_quick(bench)
    forecast = bench.kind(bench.config).forecast(4, len(bench.public or ()))
    assert bench.reference.ledger.shared == forecast.preparation
    assert set(map(str, bench.reference.ledger.cases.values())) == {str(forecast.per_case)}


# other images ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """Public images without content."""

    samples: Tensor
    labels: None = None

    @classmethod
    def of(cls, channels: int, size: int) -> Noise:
        return cls(torch.rand(12, channels, size, size, generator=torch.Generator().manual_seed(0)))

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.samples[torch.as_tensor(indices)]


def linear_target(channels: int, size: int, n_classes: int = 3, *, featureless: bool = False) -> Target:
    spec = InputSpec(shape=(channels, size, size), mean=(0.5,) * channels, std=(0.5,) * channels)
    with CPU.seeded("linear"):
        last = nn.LazyConv2d(n_classes, size) if featureless else nn.Linear(channels * size**2, n_classes)
        module = nn.Sequential(last, nn.Flatten()) if featureless else nn.Sequential(nn.Flatten(), last)
        module(torch.zeros(1, channels, size, size))
    return Target(
        module, access=Access.WHITE_BOX, adapter=IMAGES.adapter(spec), input_spec=spec,
        classes=[str(label) for label in range(n_classes)], ledger=Ledger(), runtime=CPU,
    )  # fmt: skip


@pytest.mark.parametrize(("base", "n"), [("gmi", 3), ("kedmi", 40)])
def test_latents_stay_in_the_box_and_colours_are_colours(base: str, n: int) -> None:
    target, lomma = linear_target(3, 16), attack(**TINY, base=base, draws=40)
    prepared = lomma.prepare(target, Noise.of(3, 16), CPU)
    (found,) = lomma.run(target, [CASE], prepared, CPU)
    assert found.samples.shape == (n, 3, 16, 16)
    assert found.latents is not None
    assert found.latents.abs().max() <= 1
    free = attack(**TINY, base=base, draws=40, clip="none")
    (found,) = free.run(target, [CASE], prepared, CPU)
    assert found.latents is not None
    assert bool(found.latents.abs().max() > 1) is (base == "kedmi")


def test_patience_ends_a_search_that_gets_no_better() -> None:
    options = {**TINY, "base": "kedmi", "steps": 400, "identity_weight": 0.0, "patience": 25}
    target, lomma = linear_target(3, 16), attack(**options)
    (found,) = lomma.run(target, [CASE], lomma.prepare(target, Noise.of(3, 16), CPU), CPU)
    assert found.complete
    assert target.ledger.total.gradients < 400 * lomma.config.gaussians


@pytest.mark.parametrize(("size", "message"), [(12, "not 12x12"), (8, "at least 16 pixels, not 8x8")])
def test_what_does_not_fit_is_said_before_any_query(size: int, message: str) -> None:
    target = linear_target(1, size)
    with pytest.raises(MiError, match=message) as caught:
        attack(**TINY).prepare(target, Noise.of(1, size), CPU)
    assert caught.value.hint
    assert target.ledger.total.queries == 0
    if size == 8:
        attack(**TINY, variant="logit").prepare(target, Noise.of(1, size), CPU)


def test_what_is_missing_is_said() -> None:
    target = linear_target(1, 16)
    with pytest.raises(DataError, match="needs public images"):
        attack().prepare(target, None, CPU)
    with pytest.raises(DataError, match="not prepared"):
        list(attack().run(target, [CASE], None, CPU))
    with pytest.raises(ModelError, match="no linear classification layer"):
        attack(**TINY).prepare(linear_target(1, 16, featureless=True), Noise.of(1, 16), CPU)


@pytest.mark.parametrize("base", ["gmi", "kedmi"])
def test_another_generator_can_take_the_place_of_the_trained_one(base: str) -> None:
    lomma = attack(**TINY, base=base)
    prepared = lomma.prepare(linear_target(1, 16), Noise.of(1, 16), CPU)
    weights = {name: tensor + 1 for name, tensor in lomma.generator(prepared, CPU).state_dict().items()}
    assert same(dict(lomma.generator(lomma.with_generator(prepared, weights), CPU).state_dict()), weights)
    assert not same(dict(prepared.state["gan"]["generator"]), weights)


def test_it_is_an_attack_with_prior_generator_and_forecast() -> None:
    lomma = attack()
    for contract in (Attack, HasPrior, HasGenerator, HasForecast):
        assert isinstance(lomma, contract)


def test_the_paper_preset_is_the_published_one() -> None:
    paper = attack("paper").config
    assert (paper.variant, paper.steps, paper.learning_rate, paper.class_batch) == ("full", 2400, 0.02, 60)
    assert (paper.identity_weight, paper.feature_weight, paper.restarts, paper.draws) == (100, 1, 5, 5)
    assert (paper.student_epochs, paper.student_learning_rate, len(paper.student_widths)) == (20, 0.01, 3)
    gmi = attack("paper", base="gmi").forecast(1000, 30_000)
    assert gmi.per_case == Spending(queries=5 * 2400 + 5, gradients=5 * 2400)
    assert attack("paper").forecast(1000, 30_000).per_case == Spending(queries=2405, gradients=2400)
