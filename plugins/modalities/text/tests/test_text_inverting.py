"""Inverting embeddings: what the hypothesis learns and writes, and what the target is asked."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

import mi_text.inverting as inverting
from mi_text.decoder import Decoder
from mi_text.evidence import Observed
from mi_text.guesses import NOTHING, Guesses
from mi_text.inverting import (
    EMBEDDING,
    TINY,
    Inverter,
    InverterConfig,
    batch_of_ids,
    encode,
    learn_hypothesis,
    read_tokenizer,
    uniform_numbers,
    write_tiled,
)
from mi_text.sampling import Sampling
from mi_text.splits import TextSplit
from mi_text.tokenizing import END_ID, PAD_ID, train_tokenizer
from mi_text.transformer import Size
from micore.contracts import Case
from micore.errors import BudgetExceeded, UsageError
from micore.kit.stages import Stages
from micore.registry import Registry
from micore.runtime import Runtime
from micore.shelf import Shelf
from micore.testing.lab import Lab
from micore.threat import Access, Budget, Ledger

CONFIG = InverterConfig(**{**TINY, "steps": 120})


def runtime(**others):
    return Runtime(**{"device": torch.device("cpu"), "tile": 8, **others})


@pytest.fixture(scope="module")
def lab():
    return Lab(Registry.discover())


@pytest.fixture(scope="module")
def setting(lab):
    return lab.setting("text", ("instance",), ("encoder",))


@pytest.fixture
def target(lab, setting):
    def make(budget=None, access=Access.SCORES):
        return lab.target(setting, access, ledger=Ledger(budget=Budget(queries=budget)))

    return make


@pytest.fixture(scope="module")
def learned(lab, setting):
    """Public pairs and a hypothesis of the toy's encoder."""
    toy = lab.target(setting, Access.SCORES)
    return learn_hypothesis(CONFIG, toy, setting.dataset.public, Stages(runtime()))


@pytest.fixture(scope="module")
def inverter(learned):
    return Inverter.restore(CONFIG, learned[1], runtime())


@pytest.fixture(scope="module")
def cases(lab, setting):
    return lab.cases(setting, "instance")


def guesses(case, texts):
    return Guesses(case=case, evidence=case.evidence.values, texts=list(texts), likelihoods=[-1.0] * len(texts))


# writing --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder():
    with runtime().seeded("decoder"):
        found = Decoder(Size(vocabulary=40, tokens=7, width=16, layers=1, heads=2), {EMBEDDING: (5, 1)})
    return found.eval().requires_grad_(False)


def written(decoder, values, uniform, tile=4, temperature=1.0):
    sampling = Sampling(max_tokens=6, temperature=temperature)
    prefix = lambda rows: decoder.prefix({EMBEDDING: values[rows]})  # noqa: E731
    return write_tiled(decoder, prefix, uniform, sampling, runtime(tile=tile))


def test_rows_do_not_depend_on_how_many_there_are(decoder):
    rng = runtime().rng("rows")
    values, uniform = 3 * rng.normal((11, 5)), rng.uniform((6, 11))
    ids, likelihoods = written(decoder, values, uniform)
    assert ids.shape == (11, 6)
    for rows in ([0], [10], [3, 4, 5, 6, 7]):
        alone = written(decoder, values[rows], uniform[:, rows])
        assert torch.equal(alone[0], ids[rows])
        assert torch.equal(alone[1], likelihoods[rows])


def test_likelihoods_are_means_over_tokens_and_the_end(decoder):
    rng = runtime().rng("likelihoods")
    values, uniform = 3 * rng.normal((40, 5)), rng.uniform((6, 40))
    ids, likelihoods = written(decoder, values, uniform)
    lengths = (ids != PAD_ID).sum(dim=1).tolist()
    assert {6} < set(lengths), "some end, some do not"
    for row, length in enumerate(lengths):
        tokens = ids[row : row + 1, :length]
        vectors = torch.cat([decoder.prefix({EMBEDDING: values[row : row + 1]}), decoder.network.embed(tokens)], dim=1)
        logits = decoder.network.logits(decoder.network(vectors)[0])[0]
        logits[:, :2] = -torch.inf  # neither padding nor a beginning is ever written
        said = [*tokens[0].tolist(), END_ID][:6]
        expected = torch.stack([logits.log_softmax(dim=1)[place, token] for place, token in enumerate(said)]).mean()
        assert float(likelihoods[row]) == pytest.approx(float(expected), abs=1e-4)


def test_no_rows_give_no_texts(decoder):
    ids, likelihoods = written(decoder, torch.empty(0, 5), torch.empty(6, 0))
    assert ids.shape == (0, 6)
    assert likelihoods.shape == (0,)


def test_numbers_of_a_case_are_its_own():
    one, two = Case(id="a", goal="instance"), Case(id="b", goal="instance")
    both = uniform_numbers([one, two], 3, 4, runtime(), "p")
    assert both.shape == (4, 6)
    assert torch.equal(both[:, 3:], uniform_numbers([two], 3, 4, runtime(), "p"))
    assert not torch.equal(both[:, :3], both[:, 3:])
    assert uniform_numbers([], 3, 4, runtime(), "p").shape == (4, 0)


def test_texts_are_cut_and_padded():
    tokenizer = read_tokenizer(train_tokenizer(["red cat", "blue dog eats milk"], 300))
    rows = encode(tokenizer, ["red cat", "blue dog eats milk" * 9, ""], 5)
    assert [len(row) <= 5 for row in rows] == [True] * 3
    ids = batch_of_ids(rows)
    assert ids.shape == (3, 5)
    assert ids[2].tolist() == [PAD_ID] * 5
    assert batch_of_ids([[]]).shape == (1, 1)


# learning -------------------------------------------------------------------------------------------------


def test_the_evidence_tells_the_hypothesis_what_to_write(inverter, cases, setting):
    guided = inverter.propose(cases, 2, 0.7)
    unguided = inverter.propose_unguided(cases, 2, 0.7)
    score = [
        float(torch.stack([setting.judge(item.case, item.texts).mean() for item in found]).mean())
        for found in (guided, unguided)
    ]
    assert score[0] > score[1] + 0.2
    assert [len(item.texts) for item in (*guided, *unguided)] == [3] * 2 * len(cases)
    assert len({item.texts[0] for item in unguided}) == 1, "the mean embedding is that of no case"
    assert len({tuple(item.texts[1:]) for item in unguided}) > 1


def test_a_case_proposes_the_same_alone(inverter, cases):
    among, (alone,) = inverter.propose(cases, 3, 0.7), inverter.propose(cases[-1:], 3, 0.7)
    assert (alone.texts, alone.likelihoods) == (among[-1].texts, among[-1].likelihoods)


def test_training_is_shared_and_charged(target, setting, tmp_path, monkeypatch):
    config, shelf = CONFIG.model_copy(update={"steps": 3}), Shelf(tmp_path)
    first, second = target(), target()
    _, one = learn_hypothesis(config, first, setting.dataset.public, Stages(runtime(shelf=shelf)))
    monkeypatch.setattr(inverting, "_train", lambda *_: pytest.fail("trained again"))
    _, two = learn_hypothesis(config, second, setting.dataset.public, Stages(runtime(shelf=shelf)))
    assert one["history"] == two["history"]
    assert all(torch.equal(one["weights"][name], two["weights"][name]) for name in one["weights"])
    assert first.ledger.total.queries == second.ledger.total.queries == len(setting.dataset.public)


def test_other_settings_are_trained_by_themselves(target, setting, tmp_path):
    shelf = Shelf(tmp_path)
    kept = []
    for smoothing in (0.0, 0.5):
        config = CONFIG.model_copy(update={"steps": 2, "smoothing": smoothing})
        kept.append(learn_hypothesis(config, target(), setting.dataset.public, Stages(runtime(shelf=shelf)))[1])
    assert kept[0]["history"] != kept[1]["history"]


def test_what_does_not_fit_is_refused(target, inverter, cases):
    with pytest.raises(UsageError, match="learns from public texts"):
        learn_hypothesis(CONFIG, target(), None, Stages(runtime()))
    with pytest.raises(UsageError, match="one is not enough"):
        learn_hypothesis(CONFIG, target(), TextSplit(("red cat", "red cat")), Stages(runtime()))
    narrow = Case(id="embedding-0", goal="instance", evidence=Observed(kind="embedding", values=torch.ones(3)))
    with pytest.raises(UsageError, match="3 dimensions"):
        inverter.propose([narrow], 1, 1.0)
    with pytest.raises(ValidationError, match="no multiple of heads=5"):
        InverterConfig(**{**TINY, "heads": 5})


# asking ---------------------------------------------------------------------------------------------------


def test_each_different_text_is_asked_about_once_and_charged_to_its_case(target, cases, setting):
    asked, case = target(), cases[0]
    found = guesses(case, ["red cat", "red cat", "", "blue dog eats milk"])
    found.ask(asked, found.texts)
    found.ask(asked, ["red cat", "grey cow"])
    assert found.queries == asked.ledger.cases[case.id].queries == asked.ledger.total.queries == 3
    texts = ["red cat", "blue dog eats milk", "grey cow"]
    expected = functional.cosine_similarity(asked.scores(texts), case.evidence.values[None], dim=1)
    assert [found.cosines[text] for text in texts] == pytest.approx(expected.tolist(), abs=1e-6)
    assert found.cosines[""] == NOTHING
    assert torch.allclose(found.embeddings["grey cow"], asked.scores(["grey cow"])[0])


def test_texts_are_ranked_by_what_is_known(target, cases, setting):
    case = cases[0]
    truth = setting.dataset.private.texts[0]
    found = guesses(case, ["red cat", truth, "red cat"])
    found.likelihoods = [-2.0, -3.0, -1.0]
    samples, scores = found.by_likelihood()
    assert samples == ["red cat", "red cat", truth]
    assert scores.tolist() == [-1.0, -2.0, -3.0]
    found.ask(target(), found.texts)
    samples, scores = found.by_cosine()
    assert samples[0] == truth
    assert float(scores[0]) == pytest.approx(1.0)
    assert found.nearest(5)[0] == [truth, "red cat"]
    assert found.nearest(1)[0] == [truth]


def test_a_spent_budget_leaves_nothing_half_known(target, cases):
    found = guesses(cases[0], ["red cat", "blue dog"])
    with pytest.raises(BudgetExceeded):
        found.ask(target(budget=1), found.texts)
    assert (found.queries, found.cosines, found.embeddings) == (0, {}, {})
