"""The search against a mimic whose gradient is known, its constraints, and what a fitted defense does to answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mi_defense_adversarial_output.defense import AdversarialOutput, AdversarialOutputConfig
from mi_defense_adversarial_output.mimic import Mimic, log_scores, mimicked_shape, pooled
from mi_defense_adversarial_output.noise import leading, misleading, reconstruction_error, soft_sign, within_budget
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ConfigError, ModelError
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"))
CLASSES = 5


def defense(**options: object) -> AdversarialOutput:
    quick = {"mimic_steps": 150, "width": 4}
    return AdversarialOutput(make_config(AdversarialOutputConfig, {**quick, **options}, "adversarial-output"))


def drawn(n: int, seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(n, CLASSES, generator=generator)).softmax(dim=1)


# the search -----------------------------------------------------------------------------------------------


def test_one_step_follows_the_sign_of_the_exact_gradient() -> None:
    """Of a linear mimic of log-scores: the error's gradient in the logits is known in closed form."""
    rng = np.random.default_rng(0)
    weights, scores, samples = rng.normal(size=(CLASSES, 3)), drawn(8, 0).double().numpy(), rng.normal(size=(8, 3))
    logs = np.log(scores)
    in_logs = 2 / 3 * (logs @ weights - samples) @ weights.T
    gradient = in_logs - scores * in_logs.sum(axis=1, keepdims=True)
    decided = np.abs(gradient) > 0.2 * np.abs(gradient).max(axis=1, keepdims=True)
    matrix, truth = torch.tensor(weights, dtype=torch.float32), torch.tensor(samples, dtype=torch.float32)
    found = misleading(
        lambda given_logs: given_logs @ matrix, torch.tensor(scores, dtype=torch.float32), truth, steps=1,
        step_size=0.01, budget=2.0, margin=1e-6,
    )  # fmt: skip
    moved = np.log(found.double().numpy()) - logs
    moved -= moved.mean(axis=1, keepdims=True)  # of a distribution the logits are known up to a constant
    expected = 0.01 * np.sign(gradient)
    expected -= expected.mean(axis=1, keepdims=True)
    assert np.abs(moved - expected)[decided].max() < 0.002


def test_the_soft_sign_is_the_sign_but_for_what_is_nearly_zero() -> None:
    found = soft_sign(torch.tensor([[4.0, -2.0, 1e-9], [0.0, 0.0, 0.0], [1e-30, -1e-30, 0.0]]))
    torch.testing.assert_close(found[0], torch.tensor([1.0, -1.0, 0.0]), atol=0.03, rtol=0)
    assert torch.equal(found[1], torch.zeros(3))
    torch.testing.assert_close(found[2], torch.tensor([1.0, -1.0, 0.0]), atol=0.03, rtol=0)


def test_the_label_leads_by_an_additive_margin_also_among_negative_logits() -> None:
    logits = torch.tensor([[-3.0, -1.0, -2.0], [5.0, 1.0, 0.0]])
    expected = torch.tensor([[-0.5, -1.0, -2.0], [5.0, 1.0, 0.0]])
    torch.testing.assert_close(leading(logits, torch.tensor([0, 0]), 0.5), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 2.0), st.floats(0.1, 5.0), st.floats(0.1, 6.0))
def test_budget_label_and_simplex_hold_for_any_mimic(seed: int, budget: float, step: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix, samples = torch.randn(CLASSES, 4, generator=generator), torch.randn(6, 4, generator=generator)
    scores = drawn(6, seed, scale)
    found = misleading(
        lambda logs: (logs @ matrix).tanh(), scores, samples, steps=4, step_size=step, budget=budget, margin=1e-3
    )
    assert torch.equal(found.argmax(dim=1), scores.argmax(dim=1))
    assert ((found - scores).abs().sum(dim=1) <= budget + 1e-5).all()
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6), atol=1e-5, rtol=0)


def test_what_is_within_the_budget_is_kept() -> None:
    scores, moved = drawn(4, 1), drawn(4, 2)
    torch.testing.assert_close(within_budget(moved, scores, 2.0), moved)
    halfway = within_budget(moved, scores, 0.1)
    torch.testing.assert_close((halfway - scores).abs().sum(dim=1), torch.full((4,), 0.1))
    low, high = torch.minimum(moved, scores), torch.maximum(moved, scores)
    assert ((halfway >= low - 1e-6) & (halfway <= high + 1e-6)).all()


def test_the_largest_changes_are_cut_to_one_size() -> None:
    scores, moved = torch.tensor([[0.6, 0.2, 0.1, 0.1, 0.0]]), torch.tensor([[0.3, 0.3, 0.2, 0.19, 0.01]])
    expected = torch.tensor([[0.5, 0.23, 0.13, 0.13, 0.01]])  # of 0.2: 0.1 falls; 0.01 rises whole, the others by 0.03
    torch.testing.assert_close(within_budget(moved, scores, 0.2), expected)


def test_scores_that_were_cut_to_zero_are_moved_too() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0, 0.0, 0.0]])
    matrix = torch.eye(CLASSES)
    found = misleading(
        lambda logs: logs @ matrix, scores, torch.full((1, 5), -40.0), steps=20, step_size=1.0, budget=0.1, margin=1e-3
    )
    assert torch.isfinite(found).all()
    assert (found[0, 2:] > 1e-6).all()


# mimics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 9), (3, 100, 64), (400,), (2, 3000), (4, 3, 5, 5)])
def test_a_mimic_gives_what_samples_are_pooled_to(shape: tuple[int, ...]) -> None:
    samples = torch.rand(2, *shape)
    mimic = Mimic(CLASSES, mimicked_shape(shape), width=2).requires_grad_(False)
    logs = log_scores(drawn(2, 0))
    mimic.measure(logs, pooled(samples) * 3 - 1)
    found = mimic(logs)
    assert found.shape == pooled(samples).shape
    assert float(found.min()) >= -1
    assert float(found.max()) <= 2


def test_small_samples_are_not_pooled() -> None:
    images, vectors = torch.rand(2, 3, 16, 12), torch.rand(2, 7)
    torch.testing.assert_close(pooled(images), images)
    torch.testing.assert_close(pooled(vectors), vectors)


# fitted ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    samples: Any
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Any) -> Any:
        return self.samples[indices]


PATTERNS = torch.rand(CLASSES, 64, generator=torch.Generator().manual_seed(5))
TO_LOGITS = torch.linalg.pinv(PATTERNS)


def answer(samples: Tensor) -> Tensor:
    return (8 * samples.flatten(1) @ TO_LOGITS[: samples[0].numel()]).softmax(dim=1)


def images(n: int, seed: int) -> Points:
    """Images of 8 px that are mixed of five patterns, in parts that their scores tell."""
    parts = torch.rand(n, CLASSES, generator=torch.Generator().manual_seed(seed))
    return Points((parts / parts.sum(dim=1, keepdim=True) @ PATTERNS).reshape(n, 1, 8, 8))


def fitting(split: Points, **changes: Any) -> Fitting:
    plain = Fitting(
        module=nn.Identity(), reference=split, reference_is_fresh=True, public=None, n_classes=CLASSES,
        adapter=lambda samples: samples, answer=answer, runtime=CPU,
    )  # fmt: skip
    return replace(plain, **changes)


@cache
def fitted() -> AdversarialOutput:
    guard = defense(budget=0.2)
    guard.fit(fitting(images(300, 0), public=images(300, 1)))
    return guard


def test_the_mimic_errs_more_on_answers_it_has_not_seen() -> None:
    samples = images(200, 2).samples
    scores = answer(samples)
    with torch.no_grad():
        found = fitted().adapt_output(scores, samples)
        mimic = Mimic(CLASSES, (1, 8, 8), 4)
        mimic.load_state_dict({name: tensor for name, tensor in fitted().state().items() if name != "shape"})
        before, after = (reconstruction_error(mimic(log_scores(part)), samples).mean() for part in (scores, found))
        nothing = reconstruction_error(samples.mean(dim=0), samples).mean()
    assert before < 0.7 * nothing  # the mimic has learnt to invert
    assert after > 2 * before
    assert (found - scores).abs().sum(dim=1).max() <= 0.2 + 1e-5
    assert torch.equal(found.argmax(dim=1), scores.argmax(dim=1))


def test_the_facts_describe_the_fit_and_are_json() -> None:
    facts = fitted().facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["mimic_trained_on"] == "public"
    assert facts["mimic_error_after"] > 2 * facts["mimic_error_before"]
    assert 0 < facts["l1_distortion_mean"] <= facts["l1_distortion_95"] <= 0.2 + 1e-4
    without = defense(mimic_steps=1, steps=1)
    without.fit(fitting(images(20, 0), reference_is_fresh=False))
    assert without.facts()["mimic_trained_on"] == "reference"
    assert without.facts()["reference_is_fresh"] is False


@pytest.mark.parametrize("gradients", [True, False])
def test_an_answer_depends_on_the_sample_alone(gradients: bool) -> None:
    samples = images(40, 3).samples
    with torch.set_grad_enabled(gradients):
        together = fitted().adapt_output(answer(samples), samples)
        alone = torch.cat([fitted().adapt_output(answer(row), row) for row in samples.split(1)])
        again = fitted().adapt_output(answer(samples), samples)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.equal(together, again)
    assert not together.requires_grad


def test_a_loaded_defense_answers_as_the_fitted_one() -> None:
    samples, loaded = images(10, 4).samples, defense(budget=0.2)
    loaded.load_state({name: tensor.clone() for name, tensor in fitted().state().items()})
    expected = fitted().adapt_output(answer(samples), samples)
    assert torch.equal(loaded.adapt_output(answer(samples), samples), expected)


def test_vectors_are_defended_too() -> None:
    split = Points(torch.randn(60, 12, generator=torch.Generator().manual_seed(0)))
    guard = defense()
    guard.fit(fitting(split))
    assert guard.facts()["mimic_error_after"] > guard.facts()["mimic_error_before"]


# bad input ------------------------------------------------------------------------------------------------


class Sentences(Points):
    """Samples that are no tensor."""

    def take(self, indices: Any) -> list[str]:
        return [str(index) for index in indices]


@pytest.mark.parametrize("split", [Sentences(range(20)), Points(torch.zeros(20, 8, dtype=torch.int64))])
def test_samples_that_are_no_real_tensors_are_refused(split: Points) -> None:
    with pytest.raises(ModelError, match="real-valued tensors") as caught:
        defense().fit(fitting(split))
    assert "purifier" in str(caught.value.hint)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ModelError, match="too few"):
        defense().fit(fitting(images(1, 0)))


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match="fitted to"):
        fitted().adapt_output(drawn(2, 0), torch.rand(2, 1, 9, 9))


def test_a_defense_that_was_not_fitted_does_not_answer() -> None:
    with pytest.raises(ModelError, match="not fitted"):
        defense().adapt_output(drawn(2, 0), torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize("change", [{}, {"shape": torch.tensor([1, 30, 30])}, {"low": torch.zeros(4)}])
def test_a_foreign_state_is_refused(change: dict[str, Tensor]) -> None:
    state = {**fitted().state(), **change} if change else {}
    with pytest.raises(ModelError, match="not its own"):
        defense().load_state(state)


@pytest.mark.parametrize("options", [{"budget": 0}, {"budget": 2.1}, {"steps": 0}, {"margin": 0}, {"step_size": -1}])
def test_configs_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        defense(**options)
