"""Inversion of prompts: features, padding and comparison by hand-made examples; the planted problem."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import pytest
import torch
from pydantic import ValidationError

from mi_attack_prompt_inversion.attack import PromptInversion
from mi_attack_prompt_inversion.features import FLOOR, components, fitted, log_probabilities, restored
from mi_attack_prompt_inversion.learning import bags
from mi_attack_prompt_inversion.networks import OutputInverter
from mi_attack_prompt_inversion.writing import likeness
from mi_text.evidence import Observed
from mi_text.language_model import LIKELIHOODS
from mi_text.transformer import Size
from micore.configs import preset_config
from micore.contracts import Attack, HasBaselines, HasControl, HasForecast, Reconstruction
from micore.errors import AccessDenied, ConfigError, DataError, UsageError
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access

CPU = Runtime(device=torch.device("cpu"), tile=8)


class Prompts(Trial):
    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts("prompt-inversion")


# features -------------------------------------------------------------------------------------------------


def answers(n: int = 60, vocabulary: int = 40, rank: int = 5) -> torch.Tensor:
    state, directions = CPU.rng("state").normal((n, rank)), CPU.rng("directions").normal((rank, vocabulary))
    return (state @ directions).softmax(dim=1)


def test_components_hold_all_that_a_low_rank_of_logits_differs_in() -> None:
    known = answers()
    features = fitted(known, "components", 4, 30, CPU)
    found = features(known)
    assert found.shape[1] <= 6  # the rank, and one more for the normalisation
    assert torch.allclose(torch.cov(found.T), torch.eye(found.shape[1]), atol=1e-3)
    design = torch.cat([found, torch.ones(len(found), 1)], dim=1)
    logs = log_probabilities(known)
    residual = logs - design @ torch.linalg.lstsq(design, logs).solution
    assert float(residual.pow(2).mean() / logs.var()) < 1e-3


@pytest.mark.parametrize("form", ["components", "groups", "projection", "whole"])
def test_features_fit_the_decoders_conditions_and_are_centred(form: str) -> None:
    known = answers()
    features = fitted(known, form, 4, 7, CPU)  # type: ignore[arg-type]
    values, conditions = features.values(features(known)), features.conditions(4)
    assert {name: item.shape[1] for name, item in values.items()} == {
        name: size for name, (size, _) in conditions.items()
    }
    assert sum(places for _, places in conditions.values()) == 4
    assert float(features(known).mean(dim=0).abs().max()) < 1e-4
    again = restored(features.state())
    assert torch.equal(again(known), features(known))


def test_tokens_that_an_interface_leaves_out_stay_finite() -> None:
    shown = torch.tensor([[0.9, 0.1, 0.0]])
    assert float(log_probabilities(shown).min()) == pytest.approx(torch.tensor(FLOOR).log().item())
    assert components(torch.zeros(4, 3), 2).isfinite().all()


def test_padding_of_outputs_changes_nothing() -> None:
    size = Size(vocabulary=20, tokens=40, width=16, layers=1, heads=2)
    with CPU.seeded("network"):
        inverter = OutputInverter(size, size, places=2).requires_grad_(False).eval()
    ids = CPU.rng("ids").integers(15, (3, 4, 6)) + 5
    padded = torch.cat([ids, torch.zeros(3, 4, 5, dtype=torch.int64)], dim=2)
    assert inverter.prefix(ids).shape == (3, 8, 16)
    assert torch.allclose(inverter.prefix(ids), inverter.prefix(padded), atol=1e-5)


def test_bags_count_tokens_without_padding() -> None:
    found = bags(torch.tensor([[[5, 5, 0], [5, 7, 5]]]), 9)
    assert found.square().tolist() == [[0, 0, 0, 0, 0, 4, 0, 1, 0]]


# regenerate and compare -----------------------------------------------------------------------------------


def test_the_true_prompt_has_no_divergence_and_comes_first(prompts: Prompts) -> None:
    case, target = prompts.cases[0], prompts.target()
    truth = prompts.dataset.split("private").take([0])[0]
    others = prompts.dataset.split("public").take(range(5))
    found = likeness(target, case, [*others, truth], 4)
    assert float(found[-1]) == pytest.approx(0, abs=1e-4)
    assert int(found.argmax()) == 5
    assert target.ledger.cases[case.id].queries == 6
    known = case.evidence.values.double()
    oracle = (known * (known.log() - target.scores(others[:1])[0].double().log())).sum()
    assert float(found[0]) == pytest.approx(-float(oracle), rel=1e-3)


def test_outputs_are_as_likely_as_the_language_model_says() -> None:
    trial = Trial("prompt-inversion", evidence="outputs")
    case, target = trial.cases[0], trial.target()
    (found,) = likeness(target, case, ["red cat"], 2)
    expected = []
    for output in case.evidence.texts[:2]:
        both, alone = (target.ask(LIKELIHOODS, [text])[0] for text in (f"red cat {output}", "red cat"))
        known = int((alone != 0).sum()) - 1  # without its end
        expected.append(float(both.sum() - alone[:known].sum()))
    assert float(found) == pytest.approx(sum(expected) / 2, abs=1e-3)


# the planted problem --------------------------------------------------------------------------------------


def test_it_beats_its_control_and_comparing_helps(prompts: Prompts) -> None:
    attack = prompts.attack()
    assert isinstance(attack, HasControl)
    floor = prompts.recovered(list(attack.control(prompts.cases, prompts.prepared, prompts.runtime)))
    plain = prompts.recovered(prompts.run(prompts.attack(verify=False))[1])
    assert floor < 0.15
    assert plain > floor + 0.1
    assert prompts.recovered(prompts.whole_run[1]) >= plain - 0.02


def test_the_baseline_is_the_public_text_with_the_nearest_answer(prompts: Prompts) -> None:
    attack, target = prompts.attack(), prompts.target()
    assert isinstance(attack, HasBaselines)
    text = prompts.dataset.split("public").take([7])[0]
    held = Observed(kind="next-token", values=target.scores([text])[0])
    case = replace(prompts.cases[0], evidence=held)
    (found,) = attack.baselines([case], prompts.prepared, prompts.runtime)["nearest-public"]
    assert found.samples == [text]


def test_it_spends_at_most_what_it_forecast(prompts: Prompts) -> None:
    attack = prompts.attack()
    assert isinstance(attack, HasForecast)
    forecast = attack.forecast(1, 512)
    assert prompts.preparation[0].ledger.total == forecast.preparation
    spent = prompts.whole_run[0].ledger.cases.values()
    assert all(0 < item.queries <= forecast.per_case.queries for item in spent)
    assert not prompts.run(prompts.attack(verify=False))[0].ledger.total.queries


def test_without_budget_the_decoders_order_is_given_back(prompts: Prompts) -> None:
    _, found = prompts.run(budget=1)
    assert len(found) == len(prompts.cases)
    assert not any(item.complete for item in found)


def test_outputs_alone_are_inverted_in_the_same_form() -> None:
    trial = Prompts("prompt-inversion", evidence="outputs", steps=20, candidates=2, outputs=2)
    found = trial.whole_run[1]
    assert all(trial.setting.problem(item.samples) is None and len(item.samples) == 2 for item in found)
    assert trial.preparation[0].ledger.total.queries == 2 * 512


def test_what_is_missing_or_does_not_fit_is_said(prompts: Prompts) -> None:
    attack = prompts.attack()
    assert isinstance(attack, Attack)
    with pytest.raises(UsageError, match="learns from public texts"):
        attack.prepare(prompts.target(), None, prompts.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(attack.run(prompts.target(), prompts.cases, None, prompts.runtime))
    with pytest.raises(AccessDenied, match="this needs scores"):
        prompts.prepare(attack, prompts.target(access=Access.LABEL))
    narrow = replace(prompts.cases[0], evidence=Observed(kind="next-token", values=torch.ones(3) / 3))
    with pytest.raises(UsageError, match="3 numbers; the attack was prepared for"):
        list(attack.run(prompts.target(), [narrow], prompts.prepared, prompts.runtime))
    bare = replace(prompts.cases[0], evidence=None)
    with pytest.raises(UsageError, match="holds NoneType, not Observed"):
        list(attack.run(prompts.target(), [bare], prompts.prepared, prompts.runtime))
    with pytest.raises((ConfigError, ValidationError), match="keep=9 is more than candidates=8"):
        preset_config(PromptInversion, "smoke", {"keep": 9, "candidates": 8}, "prompt-inversion")
