"""The autoencoder's mathematics, the guard of the label, and what a fitted purifier does to answers."""

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
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax
from torch import Tensor, nn

from mi_defense_purifier.autoencoder import Autoencoder, dispersion, guarded, logits_of, purification_loss, widths
from mi_defense_purifier.defense import Purifier, PurifierConfig
from mi_defense_purifier.inversion import InversionNetwork, shrunk
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ConfigError, ModelError
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"))
CLASSES = 6


def defense(**options: object) -> Purifier:
    return Purifier(make_config(PurifierConfig, {"steps": 200, **options}, "purifier"))


# mathematics ----------------------------------------------------------------------------------------------


def test_logits_are_those_of_the_scores_up_to_a_constant() -> None:
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0)) * 3
    found = logits_of(logits.softmax(dim=1))
    torch.testing.assert_close(found, logits - logits.mean(dim=1, keepdim=True), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.softmax(dim=1), logits.softmax(dim=1))


def test_scores_that_were_cut_to_zero_have_finite_logits() -> None:
    found = logits_of(torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.isfinite(found).all()
    assert found.softmax(dim=1)[0, 0] > 0.999


@pytest.mark.parametrize(("classes", "middle", "expected"), [(10, True, [10, 7, 4]), (530, False, [530, 100])])
def test_the_default_widths_are_those_of_others_code(classes: int, middle: bool, expected: list[int]) -> None:
    assert widths(classes, None, middle) == expected


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 50, 1000])
def test_the_default_bottleneck_is_narrower_than_the_classes(classes: int) -> None:
    narrow = widths(classes, None, False)[1]
    assert 1 <= narrow < max(2, classes)
    assert widths(classes, 5, False)[1] == 5


def test_the_loss_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    purified, logits = rng.normal(size=(2, 16, 5)) * 2
    cross_entropy = -log_softmax(purified, axis=1)[np.arange(16), logits.argmax(axis=1)].mean()
    expected = ((purified - logits) ** 2).mean() + 0.7 * cross_entropy
    found = purification_loss(torch.tensor(purified), torch.tensor(logits), 0.7)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_dispersion_is_the_total_variance_within_classes() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.dirichlet(np.ones(4), size=50), rng.integers(4, size=50)
    parts = [scores[labels == label] for label in range(4)]
    expected = sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts) / 50
    found = dispersion(torch.tensor(scores, dtype=torch.float32), torch.tensor(labels))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_changed_label_is_swapped_back() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    purified = torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.5, 0.5, 0.0]])
    expected = torch.tensor([[0.6, 0.1, 0.3], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5]])
    found = guarded(purified, scores)
    torch.testing.assert_close(found[:2], expected[:2])
    torch.testing.assert_close(found[2], scores[2])  # a tie that no swap can break


distributions = arrays.arrays(
    np.float32, (2, 5, 4), elements=st.floats(0.0, 1.0, width=32)
).map(lambda values: torch.tensor(values + 1e-3))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(distributions)
def test_the_guard_keeps_every_label_and_stays_a_distribution(values: Tensor) -> None:
    purified, scores = values / values.sum(dim=2, keepdim=True)
    found = guarded(purified, scores)
    assert torch.equal(found.argmax(dim=1), scores.argmax(dim=1))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))


# fitted ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    """Samples whose first values are their logits."""

    samples: Any
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Any) -> Any:
        return self.samples[indices]


def clusters(n: int, seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    noise = torch.randn(n, CLASSES, generator=generator)
    return Points(8 * nn.functional.one_hot(labels, CLASSES) + noise, labels)


def answer(samples: Tensor) -> Tensor:
    return samples[:, :CLASSES].float().softmax(dim=1)


def fitting(split: Points, **changes: Any) -> Fitting:
    plain = Fitting(
        module=nn.Identity(), reference=split, reference_is_fresh=True, public=None, n_classes=CLASSES,
        adapter=lambda samples: samples, answer=answer, runtime=CPU,
    )  # fmt: skip
    return replace(plain, **changes)


@cache
def fitted(**options: Any) -> Purifier:
    purifier = defense(**options)
    purifier.fit(fitting(clusters(400, 0)))
    return purifier


def test_answers_of_a_class_come_closer_and_keep_their_label() -> None:
    samples = clusters(300, 7).samples
    scores = answer(samples)
    given_scores = fitted().adapt_output(scores, samples)
    labels = scores.argmax(dim=1)
    assert torch.equal(given_scores.argmax(dim=1), labels)
    before, after = dispersion(logits_of(scores), labels), dispersion(logits_of(given_scores), labels)
    assert after < 0.8 * before
    assert 0 < (given_scores - scores).abs().sum(dim=1).mean() < 0.2


def test_the_facts_describe_the_fit_and_are_json() -> None:
    facts = fitted().facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["samples"], facts["reference_is_fresh"], facts["widths"]) == (400, True, [6, 4, 3])
    assert 0 < facts["l1_distortion_mean"] < facts["l1_distortion_95"] < 2
    assert facts["logit_dispersion"][1] < facts["logit_dispersion"][0]
    assert facts["guarded_share"] < 0.05
    trained_on = defense(steps=1)
    trained_on.fit(fitting(clusters(20, 0), reference_is_fresh=False))
    assert trained_on.facts()["reference_is_fresh"] is False


def test_an_answer_does_not_depend_on_its_batch() -> None:
    samples = clusters(40, 3).samples
    together = fitted().adapt_output(answer(samples), samples)
    alone = torch.cat([fitted().adapt_output(answer(row), row) for row in samples.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"middle_layer": "never", "bottleneck": 2}, {"bottleneck": 9}])
def test_a_loaded_purifier_answers_as_the_fitted_one(options: dict[str, Any]) -> None:
    samples = clusters(30, 4).samples
    loaded = defense()  # the shapes of the weights tell all
    loaded.load_state({name: tensor.clone() for name, tensor in reversed(fitted(**options).state().items())})
    expected = fitted(**options).adapt_output(answer(samples), samples)
    assert torch.equal(loaded.adapt_output(answer(samples), samples), expected)


def test_fitting_draws_from_its_own_streams() -> None:
    first, second = defense(steps=5), defense(steps=5)
    first.fit(fitting(clusters(50, 0)))
    torch.rand(17)
    second.fit(fitting(clusters(50, 0)))
    assert all(torch.equal(a, b) for a, b in zip(first.state().values(), second.state().values(), strict=True))


def test_the_inversion_term_makes_the_purified_answers_harder_to_invert() -> None:
    """Its opponent is measured anew on the answers of both purifiers."""
    generator = torch.Generator().manual_seed(0)
    split = Points(torch.randn(200, CLASSES, generator=generator))
    errors = []
    for weight in (0.0, 20.0):
        purifier = defense(inversion_weight=weight, bottleneck=5)
        purifier.fit(fitting(split))
        logits = logits_of(purifier.adapt_output(answer(split.samples), split.samples))
        with CPU.seeded("opponent"):
            opponent = InversionNetwork(CLASSES, split.samples, 1e-2)
            for _ in range(200):
                opponent.learn(logits, split.samples)
        errors.append(float(opponent.error(logits, split.samples).detach()))
    assert errors[1] > 1.2 * errors[0]


def test_what_is_inverted_to_is_small() -> None:
    assert shrunk(torch.rand(2, 3, 80, 20)).shape == (2, 3 * 32 * 20)
    assert shrunk(torch.rand(2, 16_000)).shape == (2, 1024)
    torch.testing.assert_close(shrunk(torch.full((2, 5), 0.5)), torch.full((2, 5), 0.5))


# bad input ------------------------------------------------------------------------------------------------


class Sentences(Points):
    """Samples that are no tensor."""

    def take(self, indices: Any) -> list[str]:
        return [f"{self.samples[index]}" for index in indices]


def test_samples_of_any_kind_can_be_purified_but_not_inverted() -> None:
    texts = Sentences(list(range(30)))
    asked = fitting(texts, answer=lambda found: answer(torch.randn(len(found), CLASSES)))
    with torch.random.fork_rng(devices=[]):
        defense(steps=2).fit(asked)
        with pytest.raises(ModelError, match="real-valued tensors"):
            defense(steps=2, inversion_weight=1.0).fit(asked)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples_are_refused(n: int) -> None:
    with pytest.raises(ModelError, match="too few"):
        defense().fit(fitting(clusters(n, 0)))


def test_a_purifier_that_was_not_fitted_does_not_answer() -> None:
    with pytest.raises(ModelError, match="not fitted"):
        defense().adapt_output(torch.ones(1, 2) / 2, torch.zeros(1, 2))


@pytest.mark.parametrize("state", [{}, {"layers.0.weight": torch.zeros(2, 3)}, Autoencoder([3, 2]).layers.state_dict()])
def test_a_foreign_state_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="not its own"):
        defense().load_state(state)


@pytest.mark.parametrize(
    "options", [{"bottleneck": 0}, {"label_weight": -1}, {"inversion_weight": -1}, {"steps": 0}, {"middle_layer": "x"}]
)
def test_configs_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        defense(**options)
