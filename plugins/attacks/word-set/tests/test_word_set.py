"""Word sets: the losses by their formulas, sets by hand, and the attack on the planted problem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pytest
import torch
from torch.nn import functional

from mi_attack_word_set.attack import WordSet, WordSetConfig
from mi_attack_word_set.networks import LabelNetwork, SetNetwork, set_loss
from mi_attack_word_set.words import best_threshold, common_words, f1, sentence, word_sets
from mi_text.evidence import Observed
from mi_text.splits import TextSplit
from micore.configs import preset_config
from micore.contracts import Attack, Case, HasBaselines, HasControl, HasForecast, Reconstruction
from micore.errors import AccessDenied, DataError, UsageError
from micore.runtime import Random
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Spending


def attack(preset: str = "smoke", **options: object) -> WordSet:
    config = preset_config(WordSet, preset, options, "word-set")
    assert isinstance(config, WordSetConfig)
    return WordSet(config)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return Random(seed).normal(shape)


# sets of words --------------------------------------------------------------------------------------------


def test_frequent_words_come_first_each_counted_once_a_text() -> None:
    texts = ["a a a b", "b c.", "B d"]
    assert common_words(texts, 10) == ["b", ".", "a", "c", "d"]
    assert common_words(texts, 2) == ["b", "."]


def test_texts_become_sets() -> None:
    sets = word_sets(["b a b zebra", "zebra", "c"], ["a", "b", "c"])
    assert sets.hot(torch.tensor([2, 0, 1])).tolist() == [[False, False, True], [True, True, False], [False] * 3]
    assert sets.sizes.tolist() == [3, 1, 1]
    assert sets.known() == [2, 0, 1]


def test_f1_counts_words_outside_of_the_vocabulary_as_missed() -> None:
    predicted = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    hot = torch.tensor([[True, False, True], [False, False, True], [True, False, False]])
    assert f1(predicted, hot, torch.tensor([3, 1, 1])).tolist() == pytest.approx([2 / 5, 1.0, 0.0])


def test_the_threshold_is_the_one_with_the_highest_f1() -> None:
    probabilities, hot = drawn(20, 6).sigmoid(), drawn(20, 6, seed=1) > 0
    sizes, grid = hot.sum(dim=1) + 1, torch.arange(1, 10) / 10
    by_hand = {}
    for threshold in grid.tolist():
        scores = []
        for row in range(20):
            said = {k for k in range(6) if probabilities[row, k] > threshold}
            true = {k for k in range(6) if hot[row, k]}
            scores.append(2 * len(said & true) / (len(said) + len(true) + 1))
        by_hand[threshold] = sum(scores) / 20
    assert by_hand[best_threshold(probabilities, hot, sizes, grid)] == pytest.approx(max(by_hand.values()))


def test_a_sentence_has_the_surest_word_first() -> None:
    text, score = sentence(torch.tensor([-2.0, -torch.inf, -0.5]), ["one", "two", "three"])
    assert text == "three one"
    assert score == pytest.approx(-1.25)


# losses ---------------------------------------------------------------------------------------------------


def test_the_loss_of_labels_weighs_words_that_are_there() -> None:
    network = LabelNetwork(3, 4, 5)
    embeddings, hot = drawn(2, 3), drawn(2, 5) > 0
    probabilities = network(embeddings).double().sigmoid()
    expected = -torch.where(hot, 7 * probabilities.log(), (1 - probabilities).log()).mean(dim=1)
    torch.testing.assert_close(network.losses(embeddings, hot, 7.0).double(), expected, rtol=1e-5, atol=1e-6)


def test_the_likeliest_word_is_predicted_even_below_the_threshold() -> None:
    network, embeddings = LabelNetwork(3, 4, 5), drawn(6, 3)
    probabilities = network(embeddings).sigmoid()
    found = network.confidences(embeddings, 0.999)
    assert ((found > -torch.inf).sum(dim=1) == 1).all()
    assert found.argmax(dim=1).tolist() == probabilities.argmax(dim=1).tolist()
    above = network.confidences(embeddings, 0.5) > -torch.inf
    assert ((probabilities > 0.5) <= above).all()


def test_the_loss_of_a_set_is_least_where_its_words_are_equally_likely() -> None:
    """Not so the divergence from the softmax of a 0/1 vector, which words outside of the set keep a share of."""
    wanted = torch.tensor([[True, False, True, True, False]])
    logits = drawn(1, 5).requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=5.0)
    for _ in range(400):
        optimizer.zero_grad()
        loss = set_loss(logits.log_softmax(dim=1), wanted).sum()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) == pytest.approx(torch.tensor(3.0).log().item(), abs=2e-3)
    torch.testing.assert_close(logits.detach().softmax(dim=1), wanted.float() / 3, rtol=0, atol=2e-3)


def test_the_loss_of_a_set_by_hand() -> None:
    log_probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).log()
    wanted = torch.tensor([[True, True, False], [False, False, True]])
    expected = -torch.tensor([(0.5 * torch.tensor([0.5, 0.25]).log().sum()).item(), torch.tensor(0.7).log().item()])
    torch.testing.assert_close(set_loss(log_probabilities, wanted), expected)


def test_a_set_of_one_word_is_that_word_and_the_end() -> None:
    network, embeddings = SetNetwork(3, 4, 5), drawn(2, 3)
    words = torch.tensor([1, 4])
    hot = functional.one_hot(words, 5).bool()
    hidden, last, total = torch.tanh(network.start(embeddings)), torch.tensor([5, 5]), torch.zeros(2)
    for wanted, forbidden in ((words, None), (torch.tensor([5, 5]), words)):
        hidden = network.cell(network.given(last) + network.seen(embeddings), hidden)
        logits = network.words(hidden).double()
        if forbidden is not None:
            logits[torch.arange(2), forbidden] = -torch.inf
        total = total - logits.log_softmax(dim=1)[torch.arange(2), wanted]
        last = wanted
    found = network.losses(embeddings, hot, steps=4, explore=0.0)
    torch.testing.assert_close(found.double(), total.double() / 2, rtol=1e-5, atol=1e-6)


def test_a_wrong_word_leaves_the_set_as_it_was() -> None:
    """With explore=1 words are drawn of all, so that a set of one may take all steps: none of them is the end's."""
    network, hot = SetNetwork(2, 4, 400), torch.zeros(64, 400, dtype=torch.bool)
    hot[:, 0] = True
    embeddings = torch.zeros(64, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        network.words.weight.zero_()
        network.words.bias.zero_()
        found = network.losses(embeddings, hot, steps=3, explore=1.0)
    # uniform over 401, then 400, then 399 entries: the word was hardly ever drawn
    expected = (torch.tensor([401.0, 400.0, 399.0]).log()).mean()
    assert (found - expected).abs().median() < 1e-5


def test_a_decoded_set_has_no_word_twice_and_ends() -> None:
    network = SetNetwork(3, 8, 5)
    found = network.confidences(drawn(7, 3), steps=9)
    given = (found > -torch.inf).sum(dim=1)
    assert given.min() >= 1
    assert given.max() <= 5
    with torch.no_grad():
        network.words.bias[-1] = 50.0
    assert ((network.confidences(drawn(7, 3), steps=9) > -torch.inf).sum(dim=1) == 1).all()


# the planted problem --------------------------------------------------------------------------------------


class Words(Trial):
    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()

    @cached_property
    def controls(self) -> list[Reconstruction]:
        return list(attack(**self.options).control(self.cases, self.prepared, self.runtime))

    @cached_property
    def nearest(self) -> Sequence[Reconstruction]:
        return attack(**self.options).baselines(self.cases, self.prepared, self.runtime)["nearest-public"]


@pytest.fixture(scope="module", params=["labels", "set"])
def trial(request: pytest.FixtureRequest) -> Words:
    return Words("word-set", method=request.param)


def test_it_recovers_more_than_its_control_and_retrieval(trial: Words) -> None:
    reached = trial.recovered(trial.whole_run[1])
    assert trial.recovered(trial.controls) < 0.1
    assert reached > trial.recovered(list(trial.nearest)) + 0.1
    assert reached > 0.7


def test_it_asks_for_public_texts_only(trial: Words) -> None:
    target, found = trial.whole_run
    assert trial.preparation[0].ledger.total == attack().forecast(1, 512).preparation == Spending(queries=512)
    assert target.ledger.total == Spending()
    assert all(item.complete and len(item.samples) == len(item.scores) == 1 for item in found)


def test_words_of_a_text_differ_and_are_public_ones(trial: Words) -> None:
    assert trial.prepared is not None
    for item in trial.whole_run[1]:
        given = item.samples[0].split()
        assert len(given) == len(set(given)) >= 1
        assert set(given) <= set(trial.prepared.state["words"])


def test_the_control_is_the_same_for_all(trial: Words) -> None:
    assert len({item.samples[0] for item in trial.controls}) == 1


# what is missing ------------------------------------------------------------------------------------------


def test_what_is_missing_is_said(trial: Words) -> None:
    with pytest.raises(UsageError, match="public texts"):
        attack().prepare(trial.target(), None, trial.runtime)
    with pytest.raises(UsageError, match="one public text"):
        attack().prepare(trial.target(), TextSplit(("a b",)), trial.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(attack().run(trial.target(), trial.cases, None, trial.runtime))
    with pytest.raises(AccessDenied):
        trial.prepare(attack(), trial.target(access=Access.LABEL))


def test_evidence_of_another_width_is_refused(trial: Words) -> None:
    case = Case(id="embedding-0", goal="instance", evidence=Observed(kind="embedding", values=torch.zeros(3)))
    with pytest.raises(UsageError, match="3 dimensions"):
        list(trial.attack().run(trial.target(), [case], trial.prepared, trial.runtime))


def test_it_is_an_attack_with_control_baselines_and_forecast() -> None:
    for contract in (Attack, HasControl, HasBaselines, HasForecast):
        assert isinstance(attack(), contract)


def test_a_limit_of_public_texts_is_kept() -> None:
    assert attack(public=100).forecast(1, 512).preparation == Spending(queries=100)
    assert attack(public=1000).forecast(1, 512).preparation == Spending(queries=512)
    assert attack("paper").forecast(1, 10**6).preparation == Spending(queries=10**6)
