"""Water-filling against a general solver, class means, the keyed draw, and what it does to a trained target."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from torch import Tensor, nn

from mi_defense_ssd.defense import StealthyShield, StealthyShieldConfig, class_means, drawn_labels, entropy
from mi_defense_ssd.filling import filled
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ConfigError, DataError, ModelError
from micore.kit.training import accuracy
from micore.runtime import Runtime
from micore.testing.lab import restored, train_toy
from micore.utility import answers

IMAGES, CPU, TOY = ImageModality(), Runtime(device=torch.device("cpu")), image_toy()


def defense(**options: object) -> StealthyShield:
    return StealthyShield(make_config(StealthyShieldConfig, options, "ssd"))


def simplex(n: int, k: int, seed: int, sharpness: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(n, k, generator=generator, dtype=torch.float64)).softmax(dim=1)


def loaded(means: Tensor, **options: object) -> StealthyShield:
    made = defense(**options)
    made.load_state({"means": means.float(), "key": torch.tensor([12345])})
    return made


# water-filling --------------------------------------------------------------------------------------------


def solved(score: np.ndarray, goal: np.ndarray, budget: float, reverse: bool) -> np.ndarray:
    """Minimise the divergence in parts that rise and fall; no ratio is sorted here."""
    k = len(score)

    def divergence(parts: np.ndarray) -> float:
        found = np.clip(score + parts[:k] - parts[k:], 1e-12, None)
        return float((goal * np.log(goal / found)).sum() if reverse else (found * np.log(found / goal)).sum())

    result = minimize(
        divergence, np.zeros(2 * k), method="SLSQP", options={"ftol": 1e-13, "maxiter": 500},
        bounds=[(0, 1)] * k + [(0, float(p)) for p in score],
        constraints=[
            {"type": "eq", "fun": lambda parts: parts[:k].sum() - parts[k:].sum()},
            {"type": "ineq", "fun": lambda parts: budget - parts.sum()},
        ],
    )  # fmt: skip
    assert result.status in (0, 8), result.message
    return np.asarray(score + result.x[:k] - result.x[k:])


@pytest.mark.parametrize("reverse", [False, True], ids=["KL(q||goal)", "KL(goal||q)"])
@pytest.mark.parametrize("budget", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_filling_solves_the_convex_problem_for_either_divergence(seed: int, budget: float, reverse: bool) -> None:
    scores, goals = simplex(1, 5, seed, 1.0), simplex(1, 5, seed + 100, 1.0)
    found = filled(scores, goals, torch.tensor([budget], dtype=torch.float64))[0].numpy()
    expected = solved(scores[0].numpy(), goals[0].numpy(), budget, reverse)
    np.testing.assert_allclose(found, expected, atol=2e-4)


logits = hnp.arrays(np.float32, (3, 6), elements=st.floats(-12, 12, width=32))


@settings(max_examples=80, deadline=None)
@given(first=logits, second=logits, budget=st.floats(0.0, 2.5))
def test_filling_stays_on_the_simplex_within_the_budget(first: np.ndarray, second: np.ndarray, budget: float) -> None:
    scores, goals = torch.from_numpy(first).softmax(dim=1), torch.from_numpy(second).softmax(dim=1)
    found = filled(scores, goals, torch.full((3,), budget))
    assert bool((found >= 0).all())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3), atol=1e-5, rtol=0)
    gap, moved = ((scores - other).abs().sum(dim=1) for other in (goals, found))
    torch.testing.assert_close(moved, gap.clamp(max=budget), atol=1e-5, rtol=0)  # all of the budget is used
    left = (found - goals).abs().sum(dim=1)
    torch.testing.assert_close(left, gap - moved, atol=2e-5, rtol=0)  # and every step is one towards the goal


def test_a_budget_of_nothing_changes_nothing_and_a_large_one_gives_the_goal() -> None:
    scores, goals = simplex(4, 7, 0), simplex(4, 7, 1)
    torch.testing.assert_close(filled(scores, goals, torch.zeros(4, dtype=torch.float64)), scores)
    assert torch.equal(filled(scores, goals, torch.full((4,), 2.0, dtype=torch.float64)), goals)


def test_more_budget_never_means_more_divergence() -> None:
    scores, goals = simplex(20, 10, 0), simplex(20, 10, 1)
    found = [
        (q * (q / goals).log()).sum(dim=1)
        for q in (filled(scores, goals, torch.full((20,), b, dtype=torch.float64)) for b in (0.01, 0.2, 0.6, 1.2))
    ]
    assert all(bool((later <= earlier + 1e-12).all()) for earlier, later in pairwise(found))


# means and draws ------------------------------------------------------------------------------------------


def test_class_means_are_those_of_the_members() -> None:
    scores, labels = simplex(30, 4, 0).float(), torch.arange(30) % 4
    found = class_means(scores, labels)
    for label in range(4):
        expected = scores[labels == label].double().numpy().mean(axis=0)
        np.testing.assert_allclose(found[label].numpy(), expected, atol=2e-6)
    assert bool((found > 0).all())


def test_a_class_without_members_gets_the_mean_weighted_by_its_scores() -> None:
    scores, labels = simplex(30, 4, 0).float(), torch.arange(30) % 3
    weights = scores[:, 3].double().numpy()
    expected = (weights[:, None] * scores.double().numpy()).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(class_means(scores, labels)[3].numpy(), expected, atol=2e-6)
    certain = torch.eye(3)[torch.tensor([0, 1])]  # of class 2 there is nothing at all
    means = class_means(certain, torch.tensor([0, 1]))
    assert bool(torch.isfinite(means).all())
    assert bool((means > 0).all())
    torch.testing.assert_close(means.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_labels_are_drawn_from_the_tempered_scores(temperature: float) -> None:
    scores = torch.tensor([[0.55, 0.25, 0.15, 0.05]])
    numbers = torch.rand(20000, 4, generator=torch.Generator().manual_seed(0)).clamp(min=1e-7)
    labels = drawn_labels(scores.expand(20000, 4), temperature, numbers)
    found = torch.bincount(labels, minlength=4).double().numpy() / 20000
    powers = scores[0].double().numpy() ** (1 / temperature)
    np.testing.assert_allclose(found, powers / powers.sum(), atol=0.015)


def test_entropy_is_in_nats() -> None:
    found = entropy(torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]))
    assert found.tolist() == pytest.approx([np.log(4), 0, np.log(2)])


# the defense ----------------------------------------------------------------------------------------------


def asked(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_at_most_epsilon_times_entropy() -> None:
    scores, means = simplex(200, 10, 0).float(), simplex(10, 10, 1).float()
    moved_to = loaded(means).adapt_output(scores, asked(200))
    moved = (moved_to - scores).abs().sum(dim=1)
    budgets = 0.35 * entropy(scores)
    assert bool((moved <= budgets + 1e-5).all())
    assert float(((moved - budgets).abs() < 1e-4).double().mean()) > 0.5  # the goals of most are further away
    assert float(moved.mean()) > 0.1
    np.testing.assert_allclose(moved_to.sum(dim=1).numpy(), 1, atol=1e-6)


def test_asking_again_tells_nothing_with_the_key_and_the_mixture_without() -> None:
    score = torch.tensor([[0.5, 0.45, 0.05]])
    means = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    picture = asked(1).expand(1000, -1, -1, -1)
    keyed, fresh = (
        loaded(means, keyed=flag, temperature=1.0).adapt_output(score.expand(1000, 3), picture)
        for flag in (True, False)
    )
    assert len(keyed.unique(dim=0)) == 1
    assert len(fresh.unique(dim=0)) == 3
    budget = 0.35 * entropy(score)
    mixture = sum(float(score[0, y]) * filled(score, means[y : y + 1], budget) for y in range(3))
    np.testing.assert_allclose(fresh.mean(dim=0).numpy(), mixture[0].numpy(), atol=0.02)  # type: ignore[index]
    assert float((keyed.mean(dim=0) - mixture[0]).abs().max()) > 0.05  # type: ignore[index]


def test_other_samples_get_other_draws() -> None:
    score, means = torch.tensor([[0.5, 0.45, 0.05]]), simplex(3, 3, 1).float()
    found = loaded(means, temperature=1.0).adapt_output(score.expand(100, 3), asked(100))
    assert len(found.unique(dim=0)) == 3


def test_any_scores_give_probabilities() -> None:
    hard = torch.cat([torch.eye(5), torch.full((1, 5), 0.2), torch.tensor([[1 - 1e-30, 1e-30, 0, 0, 0]])])
    means = class_means(torch.eye(5), torch.arange(5))
    kept = hard.clone()
    found = loaded(means).adapt_output(hard, ["text"] * 7)
    assert bool(torch.isfinite(found).all())
    assert bool((found >= 0).all())
    np.testing.assert_allclose(found.sum(dim=1).numpy(), 1, atol=1e-6)
    assert torch.equal(hard, kept)
    torch.testing.assert_close(found[:5], torch.eye(5), atol=1e-5, rtol=0)  # no entropy, no budget


@pytest.mark.parametrize("options", [{"epsilon": 0}, {"temperature": 0}, {"levels": 1}, {"grouping": "none"}])
def test_unsuited_settings_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        defense(**options)


def test_what_is_missing_is_told() -> None:
    scores = torch.full((1, 3), 1 / 3)
    with pytest.raises(ModelError, match="no class means yet"):
        defense().adapt_output(scores, asked(1))
    with pytest.raises(ModelError, match="no class means"):
        defense().load_state({})
    with pytest.raises(ModelError, match="key"):
        defense().load_state({"means": torch.eye(3)})
    with pytest.raises(ModelError, match="fitted to 4 classes"):
        loaded(torch.full((4, 4), 0.25)).adapt_output(scores, asked(1))


# on a trained target --------------------------------------------------------------------------------------


def fitted(module: nn.Module, labels: Tensor | None, **options: Any) -> StealthyShield:
    dataset = TOY.dataset
    private, adapter = dataset.split("private"), IMAGES.adapter(dataset.input)

    class Reference:
        def __len__(self) -> int:
            return len(private)

        def take(self, indices: Any) -> Tensor:
            found: Tensor = private.take(indices)
            return found

    reference: Any = Reference()
    reference.labels = labels
    made = defense(**options)
    with torch.no_grad():
        made.fit(
            Fitting(
                module=module, reference=reference, reference_is_fresh=False, public=None,
                n_classes=len(dataset.classes), adapter=adapter, runtime=CPU,
                answer=lambda samples: module(adapter(samples)).float().softmax(dim=1),
            )
        )  # fmt: skip
    return made


def test_answers_of_a_class_come_together_and_labels_stay() -> None:
    """What the method is for: held-out answers diverge less from the mean of their class."""
    module = restored(TOY, train_toy(TOY, IMAGES, "classifier")).eval().requires_grad_(False)
    private, held_out, adapter = (
        TOY.dataset.split("private"), TOY.dataset.split("holdout"), IMAGES.adapter(TOY.dataset.input),
    )  # fmt: skip
    labels = held_out.labels
    assert labels is not None
    shield = fitted(module, private.labels)
    plain, shielded = (answers(module, adapter, held_out, CPU, guards) for guards in ((), (shield,)))
    spread = [_conditional_information(scores.double(), labels) for scores in (plain, shielded)]
    assert spread[1] < 0.2 * spread[0], spread
    assert accuracy(shielded, labels) >= accuracy(plain, labels) - 0.05
    assert shield.facts() == {
        "reference_samples": len(private), "reference_is_fresh": False, "classes_without_reference": 0,
    }  # fmt: skip
    assert set(shield.state()) == {"means", "key"}


def _conditional_information(scores: Tensor, labels: Tensor) -> float:
    """Return the mean divergence of answers from the mean answer of their class, in nats."""
    total = 0.0
    for label in labels.unique():
        own = scores[labels == label]
        total += float(torch.special.xlogy(own, own / own.mean(dim=0)).sum())
    return total / len(scores)


def test_predicted_labels_may_make_the_means() -> None:
    module = restored(TOY, train_toy(TOY, IMAGES, "classifier")).eval().requires_grad_(False)
    split, adapter = TOY.dataset.split("private"), IMAGES.adapter(TOY.dataset.input)
    wrong = torch.zeros(len(split), dtype=torch.int64)
    scores = answers(module, adapter, split, CPU)
    found = fitted(module, wrong, grouping="predicted").state()["means"]
    torch.testing.assert_close(found, class_means(scores, scores.argmax(dim=1)), atol=1e-5, rtol=1e-4)


def test_a_reference_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match="labelled reference"):
        fitted(nn.Identity(), None)
