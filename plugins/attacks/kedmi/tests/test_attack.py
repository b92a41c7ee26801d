"""KED-MI as a run calls it: it really inverts a trained target, and spends what it said it would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn

from mi_attack_kedmi.attack import KnowledgeEnriched
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import preset_config
from micore.contracts import Attack, Case, HasForecast, HasGenerator, HasPrior, Prepared, Reconstruction, Subject
from micore.errors import DataError, MiError
from micore.inputs import InputSpec
from micore.kit.measuring import Figure, Rows, measure
from micore.kit.training import TrainingConfig
from micore.runs.subjects import sample_prior, wrong_label
from micore.runtime import Runtime
from micore.target import Target
from micore.testing.counting import same
from micore.testing.lab import holdout_accuracy, restored, train_toy
from micore.threat import Access, Ledger, Spending

IMAGES, CPU = ImageModality(), Runtime(device=torch.device("cpu"), seed=1, tile=16)
# The default preset with a narrower GAN that takes larger steps, and a shorter search, to fit in 20 s.
QUICK = {
    "width": 12, "iterations": 400, "gan_learning_rate": 8e-4, "steps": 600, "learning_rate": 0.05,
    "restarts": 3, "draws": 2,
}  # fmt: skip


def attack(preset: str = "smoke", **options: object) -> KnowledgeEnriched:
    return KnowledgeEnriched(preset_config(KnowledgeEnriched, preset, options, "kedmi"))


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


def test_each_case_has_draws_of_each_gaussian_best_first(digits: Digits) -> None:
    _, prepared, found = digits.whole_run
    generator = digits.attack.generator(prepared, CPU)
    for item in found:
        assert item.samples.shape == (6, 1, 16, 16)
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        confidence = digits.target().scores(item.samples)[:, item.case.label]
        torch.testing.assert_close(item.scores, confidence, rtol=1e-3, atol=1e-4)
        assert item.latents is not None
        torch.testing.assert_close(generator(item.latents), item.samples, rtol=0, atol=1e-4)
        assert len(item.latents.unique(dim=0)) == 6


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


def linear_target(channels: int, size: int, n_classes: int = 3) -> Target:
    spec = InputSpec(shape=(channels, size, size), mean=(0.5,) * channels, std=(0.5,) * channels)
    with CPU.seeded("linear"):
        module = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, n_classes))
    return Target(
        module, access=Access.WHITE_BOX, adapter=IMAGES.adapter(spec), input_spec=spec,
        classes=[str(label) for label in range(n_classes)], ledger=Ledger(), runtime=CPU,
    )  # fmt: skip


CASE = Case(id="class-1", goal="class", label=1)
TINY = {"iterations": 1, "steps": 2, "draws": 2, "gan_batch_size": 4}


def invert(**options: object) -> Reconstruction:
    target, kedmi = linear_target(3, 8), attack(**{**TINY, **options})
    prepared = kedmi.prepare(target, Noise.of(3, 8), CPU)
    (found,) = kedmi.run(target, [CASE], prepared, CPU)
    return found


def test_clipping_keeps_draws_in_the_box() -> None:
    free, clipped = invert(draws=40), invert(draws=40, clip="samples")
    assert free.latents is not None
    assert clipped.latents is not None
    assert free.latents.abs().max() > 1
    assert clipped.latents.abs().max() <= 1
    assert clipped.samples.shape == (40, 3, 8, 8)


def test_patience_ends_a_search_that_gets_no_better() -> None:
    target, kedmi = linear_target(3, 8), attack(**{**TINY, "steps": 400, "identity_weight": 0.0, "patience": 25})
    (found,) = kedmi.run(target, [CASE], kedmi.prepare(target, Noise.of(3, 8), CPU), CPU)
    assert found.complete
    assert target.ledger.total.gradients < 400 * kedmi.config.restarts


def test_a_size_that_the_gan_cannot_make_is_refused_before_any_query() -> None:
    target = linear_target(1, 12)
    with pytest.raises(MiError, match="not 12x12") as caught:
        attack(**TINY).prepare(target, Noise.of(1, 12), CPU)
    assert caught.value.hint
    assert target.ledger.total.queries == 0


def test_what_is_missing_is_said() -> None:
    target = linear_target(1, 8)
    with pytest.raises(DataError, match="needs public images"):
        attack().prepare(target, None, CPU)
    with pytest.raises(DataError, match="not prepared"):
        list(attack().run(target, [CASE], None, CPU))


def test_another_generator_can_take_the_place_of_the_trained_one() -> None:
    kedmi = attack(**TINY)
    prepared = kedmi.prepare(linear_target(1, 8), Noise.of(1, 8), CPU)
    weights = {name: tensor + 1 for name, tensor in kedmi.generator(prepared, CPU).state_dict().items()}
    changed = kedmi.with_generator(prepared, weights)
    assert same(dict(kedmi.generator(changed, CPU).state_dict()), weights)
    assert not same(dict(prepared.state["generator"]), weights)


def test_it_is_an_attack_with_prior_generator_and_forecast() -> None:
    kedmi = attack()
    for contract in (Attack, HasPrior, HasGenerator, HasForecast):
        assert isinstance(kedmi, contract)


def test_the_paper_preset_is_the_published_one() -> None:
    paper = attack("paper").config
    assert (paper.steps, paper.learning_rate, paper.restarts, paper.draws, paper.clip) == (2400, 0.02, 1, 5, "none")
    assert (paper.latent_dim, paper.width, paper.kernels, paper.kernel_dim) == (100, 64, 64, 50)
    assert (paper.gan_batch_size, paper.critic_steps, paper.gan_learning_rate) == (64, 5, 2e-4)
    assert attack("paper").forecast(1000, 30_000).per_case == Spending(queries=2405, gradients=2400)
