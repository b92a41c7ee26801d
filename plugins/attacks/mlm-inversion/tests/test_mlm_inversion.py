"""The inversion of masked language models: chains, ranking and reading by hand-made models; the planted problem."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import pytest
import torch
from torch import Tensor

from mi_attack_mlm_inversion.chains import Sampler, Start, sample
from mi_attack_mlm_inversion.filling import Filler, filler_of
from mi_attack_mlm_inversion.ranking import pseudo_likelihoods, ranked
from mi_attack_mlm_inversion.reading import hidden, shown
from mi_text.masked_model import MaskedLanguageModel
from mi_text.tokenizing import MASK_ID, text_input, train_tokenizer
from mi_text.toy import SECRETS
from mi_text.transformer import Size
from micore.contracts import Attack, HasControl, Reconstruction
from micore.errors import AccessDenied, DataError, UsageError
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access

CPU = Runtime(device=torch.device("cpu"), tile=4)
SPEC = text_input(train_tokenizer(["alice has code 27", "bob owns pin 91"] * 4, 300), 16)


class Fixed(MaskedLanguageModel):
    """Fills every place in with one distribution, whatever stands around."""

    def __init__(self, distribution: Tensor) -> None:
        super().__init__(Size(vocabulary=len(distribution), tokens=16, width=8, layers=1, heads=1))
        self.distribution = distribution

    def serve(self, name: str, inputs: Tensor, **options: object) -> Tensor:
        """Return the distribution at all places."""
        return self.distribution.expand(*inputs.shape, -1)


def fixed(**probabilities: float) -> Filler:
    """A filler with these probabilities of single-character tokens."""
    filler = Filler(spec=SPEC, runtime=CPU)
    distribution = torch.zeros(filler.tokenizer.get_vocab_size())
    for name, probability in probabilities.items():
        distribution[filler.tokenizer.token_to_id(name[-1])] = probability
    return Filler(spec=SPEC, runtime=CPU, module=Fixed(distribution))


# reading --------------------------------------------------------------------------------------------------


def test_a_hidden_word_takes_its_space_along() -> None:
    filler = fixed(_2=1.0)
    row = hidden(filler, "alice has code ", "", 3)
    whole = filler.tokenizer.encode("alice has code 27").ids
    assert len(row.ids) == len(whole)
    assert [row.ids[place] for place in row.places] == [MASK_ID] * 3
    assert list(row.ids[: row.places[0]]) == whole[: row.places[0]]


def test_places_of_a_value_are_those_of_the_text_read_again() -> None:
    filler = fixed(_2=1.0)
    row = shown(filler, "alice has code ", "27", " and more")
    assert filler.tokenizer.decode([row.ids[place] for place in row.places]) == "27"


def test_what_is_too_long_is_cut_around_the_hole() -> None:
    filler = fixed(_2=1.0)
    row = hidden(filler, "alice " * 40, " bob" * 40, 2)
    assert len(row.ids) == filler.width
    assert [row.ids[place] for place in row.places] == [MASK_ID] * 2
    assert row.places[0] > 2
    assert row.places[-1] < filler.width - 3


# chains and ranking ---------------------------------------------------------------------------------------


def test_chains_draw_from_the_distribution_and_then_among_the_most_likely() -> None:
    filler = fixed(_1=0.5, _2=0.3, _7=0.2)
    row = hidden(filler, "bob ", "", 2)
    numbers = CPU.rng("numbers").uniform((400, 3, 2, 2))
    starts = [Start(row=row, owner="case", uniform=drawn) for drawn in numbers]
    full = sample(filler, starts, Sampler(sweeps=3, burn_in=2, top_k=300))
    top = sample(filler, starts, Sampler(sweeps=3, burn_in=2, top_k=2))
    assert all(len(chain) == 1 for chain in full)  # only the sweep after the burn-in counts
    seen = Counter(filler.tokenizer.id_to_token(token) for chain in full for token in chain[0])
    assert {name: count / 800 for name, count in seen.items()} == pytest.approx(
        {"1": 0.5, "2": 0.3, "7": 0.2}, abs=0.06
    )
    assert {filler.tokenizer.id_to_token(token) for chain in top for token in chain[0]} == {"1", "2"}


def test_the_pseudo_likelihood_hides_each_token_in_turn() -> None:
    vocabulary = Filler(spec=SPEC, runtime=CPU).tokenizer.get_vocab_size()
    with CPU.seeded("network"):
        module = MaskedLanguageModel(Size(vocabulary=vocabulary, tokens=16, width=16, layers=1, heads=2))
    module.requires_grad_(False).eval()
    filler = Filler(spec=SPEC, runtime=CPU, module=module)
    rows = [shown(filler, "bob owns pin ", value, "") for value in ("91", "7")]
    found = pseudo_likelihoods(filler, rows, "case")
    for row, values in zip(rows, found, strict=True):
        for place, value in zip(row.places, values.tolist(), strict=True):
            masked = torch.tensor([row.ids]).index_fill(1, torch.tensor([place]), MASK_ID)
            oracle = module(masked).log_softmax(dim=1)[0, row.ids[place]]
            assert value == pytest.approx(float(oracle), abs=1e-4)


def test_values_are_ranked_by_the_sum_or_the_mean_and_the_empty_one_is_last() -> None:
    likelihoods = [torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-2.0]), torch.zeros(0)]
    assert ranked(["long", "short", ""], likelihoods, mean=False)[0] == ["short", "long", ""]
    assert ranked(["long", "short", ""], likelihoods, mean=True)[0] == ["long", "short", ""]


# the planted problem --------------------------------------------------------------------------------------


class Planted(Trial):
    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted("mlm-inversion")


def controls(trial: Trial) -> list[Reconstruction]:
    attack = trial.attack()
    assert isinstance(attack, HasControl)
    return list(attack.control(trial.cases, trial.prepared, trial.runtime))


def test_the_secret_is_one_of_the_two_most_likely_values_and_the_control_knows_none(planted: Planted) -> None:
    _, found = planted.whole_run
    assert all(set(item.samples[:2]) & set(SECRETS) for item in found)  # a value cut short looks as likely
    assert sum(item.samples[0] in SECRETS for item in found) >= 2
    assert planted.recovered(controls(planted)) < 0.1
    assert planted.preparation[0].ledger.total.queries == 0


def test_candidates_are_all_ranked_by_what_the_target_says(planted: Planted) -> None:
    trial = Planted("mlm-inversion", evidence="candidates")
    target, found = trial.run()
    assert sum(item.samples[0] in SECRETS for item in found) == len(found)
    filler = filler_of(target, trial.runtime)
    for item in found:
        hole = item.case.evidence
        assert sorted(item.samples) == sorted(hole.filled(value) for value in set(hole.candidates))
        wanted = sum(len(shown(filler, hole.before, value, hole.after).places) for value in set(hole.candidates))
        assert target.ledger.cases[item.case.id].queries == wanted


def test_whole_texts_are_sampled_and_the_control_samples_as_many(planted: Planted) -> None:
    trial = Planted("mlm-inversion", evidence="nothing", samples=6, prompts=("alice", ""))
    (found,) = trial.run()[1]
    assert len(found.samples) == 6
    assert sum(text.startswith("alice") for text in found.samples) >= 3
    assert [len(item.samples) for item in controls(trial)] == [6]


def test_a_budget_leaves_the_cases_that_are_done(planted: Planted) -> None:
    total = planted.whole_run[0].ledger.total.queries
    target, found = planted.run(budget=int(0.7 * total))
    assert 0 < len(found) < len(planted.cases)
    assert target.ledger.total.queries <= 0.7 * total


def test_what_is_missing_or_does_not_fit_is_said(planted: Planted) -> None:
    attack = planted.attack()
    assert isinstance(attack, Attack)
    with pytest.raises(DataError, match="needs public texts"):
        attack.prepare(planted.target(), None, planted.runtime)
    with pytest.raises(DataError, match="was not prepared"):
        list(attack.run(planted.target(), planted.cases, None, planted.runtime))
    whole = planted.modality.cases("corpus", planted.dataset, planted.dataset.classes, None, "nothing")
    with pytest.raises(UsageError, match="holds NoneType, not Hole"):
        list(attack.run(planted.target(), whole, planted.prepared, planted.runtime))
    with pytest.raises(AccessDenied):
        list(attack.run(planted.target(access=Access.LABEL), planted.cases, planted.prepared, planted.runtime))
