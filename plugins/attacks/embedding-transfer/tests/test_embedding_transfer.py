"""Both methods on the planted problem; the search against enumeration, within its budget and case by case."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from mi_attack_embedding_transfer.alignment import fit_alignment
from mi_attack_embedding_transfer.attack import EmbeddingTransfer
from mi_attack_embedding_transfer.search import Course, SearchPlan, penalised, search
from mi_attack_embedding_transfer.settings import EmbeddingTransferConfig
from mi_attack_embedding_transfer.writers import Writer, restore_writer
from mi_text.asking import embed
from mi_text.evidence import Observed, evidence_of
from mi_text.tokenizing import SPECIALS
from micore.configs import preset_config
from micore.contracts import Attack, HasBaselines, HasControl, HasForecast, Prepared, Reconstruction
from micore.errors import AccessDenied, ConfigError, DataError, UsageError
from micore.runtime import Random
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Spending


def attack(preset: str = "smoke", **options: object) -> EmbeddingTransfer:
    config = preset_config(EmbeddingTransfer, preset, options, "embedding-transfer")
    assert isinstance(config, EmbeddingTransferConfig)
    return EmbeddingTransfer(config)


class Transfer(Trial):
    @cached_property
    def whole_run(self) -> tuple[Target, list[Reconstruction]]:
        return self.run()

    @cached_property
    def controls(self) -> list[Reconstruction]:
        return list(attack(**self.options).control(self.cases, self.prepared, self.runtime))

    @cached_property
    def writer(self) -> Writer:
        assert self.prepared is not None
        return restore_writer(self.prepared.state["writer"], attack(**self.options)._writing(), self.runtime)


@pytest.fixture(scope="module")
def aligned() -> Transfer:
    return Transfer("embedding-transfer")


@pytest.fixture(scope="module")
def searched() -> Transfer:
    return Transfer("embedding-transfer", method="search")


# align ----------------------------------------------------------------------------------------------------


def test_aligned_embeddings_are_read(aligned: Transfer) -> None:
    assert [len(item.samples) for item in aligned.controls] == [len(item.samples) for item in aligned.whole_run[1]]
    assert aligned.recovered(aligned.controls) < 0.1
    assert aligned.recovered(aligned.whole_run[1]) > 0.25


def test_pairs_are_all_that_is_asked_for(aligned: Transfer) -> None:
    target, found = aligned.whole_run
    assert aligned.preparation[0].ledger.total == attack().forecast(1, 512).preparation == Spending(queries=256)
    assert target.ledger.total == attack().forecast(1, 512).per_case == Spending()
    assert all(item.complete and len(item.samples) == 3 for item in found)


def test_samples_are_ranked_by_the_own_encoder(aligned: Transfer) -> None:
    for item in aligned.whole_run[1]:
        assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
        assert item.scores.abs().max() <= 1 + 1e-6


def test_retrieval_knows_the_pairs_alone(aligned: Transfer) -> None:
    assert aligned.prepared is not None
    known = aligned.prepared.state["pairs"]["texts"]
    assert len(known) == 256
    found = attack().baselines(aligned.cases, aligned.prepared, aligned.runtime)["nearest-public"]
    assert {item.samples[0] for item in found} <= set(known)


def test_recovery_does_not_fall_with_more_pairs(aligned: Transfer) -> None:
    """Averaged over four draws of the pairs; the decoder is the same throughout."""
    prepared, public = aligned.prepared, aligned.dataset.split("public")
    assert prepared is not None
    texts = list(dict.fromkeys(public.take(range(len(public)))))
    embeddings, own = embed(aligned.target(), texts), aligned.writer.encoder(texts)
    reached = []
    for n in (2, 8, 32, 256):
        values = []
        for draw in range(4):
            rows = Random(draw).permutation(len(texts))[:n]
            alignment = fit_alignment(embeddings[rows], own[rows], attack().config.penalties)
            state = {**prepared.state, "alignment": alignment.to_dict()}
            found = attack().run(aligned.target(), aligned.cases, Prepared(state=state), aligned.runtime)
            values.append(aligned.recovered(list(found)))
        reached.append(sum(values) / len(values))
    assert reached == sorted(reached)
    assert reached[-1] > reached[0] + 0.2


def test_the_greedy_text_alone_takes_no_random_numbers(aligned: Transfer) -> None:
    found = [
        list(attack(candidates=0).run(aligned.target(), aligned.cases, aligned.prepared, runtime))
        for runtime in (aligned.runtime, Trial("embedding-transfer", seed=5).runtime)
    ]
    assert [item.samples for item in found[0]] == [item.samples for item in found[1]]
    assert all(len(item.samples) == 1 for item in found[0])


# search ---------------------------------------------------------------------------------------------------


def test_texts_that_are_found_have_the_embedding(searched: Transfer) -> None:
    assert [len(item.samples) for item in searched.controls] == [len(item.samples) for item in searched.whole_run[1]]
    assert abs(searched.recovered(searched.controls)) < 0.15
    assert searched.recovered(searched.whole_run[1]) > 0.4


def test_scores_are_cosines_of_what_the_target_says_to_the_texts_themselves(searched: Transfer) -> None:
    for item in searched.whole_run[1]:
        evidence = evidence_of(item.case, Observed).values
        answers = embed(searched.target(), item.samples)
        cosines = functional.cosine_similarity(answers, evidence[None])
        torch.testing.assert_close(item.scores, cosines, rtol=0, atol=1e-5)


def test_the_best_cosine_never_falls(searched: Transfer) -> None:
    for item in searched.whole_run[1]:
        course = list(item.history["cosine"])
        assert course == sorted(course)
        assert course[-1] == pytest.approx(float(item.scores[0]))
        assert len(course) == attack().config.search_steps + attack().config.sweeps


def test_every_query_is_a_cases_own_and_no_text_is_asked_twice(searched: Transfer) -> None:
    target, found = searched.whole_run
    most = attack(method="search").forecast(1, 512)
    assert searched.preparation[0].ledger.total == most.preparation == Spending()
    assert target.ledger.shared == Spending()
    for item in found:
        spent = target.ledger.cases[item.case.id].queries
        assert spent <= most.per_case.queries
        earlier = [stand.queries for stand in item.snapshots]
        assert earlier == sorted(set(earlier))
        assert earlier[-1] < spent


def test_snapshots_hold_the_best_so_far(searched: Transfer) -> None:
    for item in searched.whole_run[1]:
        evidence = evidence_of(item.case, Observed).values
        best = [
            float(functional.cosine_similarity(embed(searched.target(), stand.samples[:1]), evidence[None]))
            for stand in item.snapshots
        ]
        assert best == sorted(best)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_spent_budget_leaves_what_was_found(searched: Transfer, share: float) -> None:
    budget = int(share * searched.whole_run[0].ledger.total.queries)
    target, found = searched.run(budget=budget)
    assert 0 < target.ledger.total.queries <= budget
    assert found
    assert not any(item.complete for item in found)
    if share == 0.5:
        assert 0.05 < searched.recovered(found) <= searched.recovered(searched.whole_run[1])


def test_a_case_is_searched_alike_alone_and_with_others(searched: Transfer) -> None:
    (alone,) = attack(method="search").run(searched.target(), searched.cases[-1:], searched.prepared, searched.runtime)
    among = next(item for item in searched.whole_run[1] if item.case.id == alone.case.id)
    assert alone.samples == among.samples
    assert torch.equal(alone.scores, among.scores)


def plan(**changes: int | float) -> SearchPlan:
    values = {"beam": 4, "top_k": 16, "steps": 1, "sweeps": 0, "penalty": 1.0, **changes}
    return SearchPlan(**values)  # type: ignore[arg-type]


def test_one_step_with_all_tokens_finds_what_enumeration_does(searched: Transfer) -> None:
    tokenizer = searched.writer.tokenizer
    texts = {tokenizer.decode([token]).strip() for token in range(len(SPECIALS), tokenizer.get_vocab_size())} - {""}
    answers = dict(zip(sorted(texts), embed(searched.target(), sorted(texts)), strict=True))
    for case in searched.cases[:3]:
        evidence = evidence_of(case, Observed).values
        course = Course(case=case, evidence=evidence)
        assert search([course], searched.target(), searched.writer, plan(top_k=10_000), searched.runtime)
        assert set(course.known) == texts
        cosines = {text: float(functional.cosine_similarity(answers[text], evidence, dim=0)) for text in texts}
        assert course.known[course.best(1)[0]] == pytest.approx(max(cosines.values()), abs=1e-5)


def test_substitution_mends_a_wrong_word(searched: Transfer) -> None:
    case = searched.cases[0]
    evidence = evidence_of(case, Observed).values
    true = searched.dataset.split("private").take([0])[0]
    wrong = true.split()
    wrong[2] = next(word for word in ("milk", "bread", "corn", "cow", "horse") if word not in true)
    course = Course(case=case, evidence=evidence)
    course.ask(searched.target(), [" ".join(wrong)])
    before = course.known[course.best(1)[0]]
    swept = plan(steps=0, sweeps=1, top_k=10_000)
    assert search([course], searched.target(), searched.writer, swept, searched.runtime)
    assert before < 0.9
    assert course.best(1) == [true]


def test_a_penalty_makes_tokens_that_stand_there_less_likely() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0], [3.0, 1.0, -1.0]])
    found = penalised(logits, torch.tensor([[0, 1], [2, 2]]), 2.0)
    assert found.tolist() == [[1.0, -4.0, 1.0], [3.0, 1.0, -2.0]]
    assert torch.equal(penalised(logits, torch.empty((2, 0), dtype=torch.int64), 2.0), logits)


def test_the_language_model_alone_writes_other_texts_for_every_case(searched: Transfer) -> None:
    texts: Sequence[tuple[str, ...]] = [tuple(item.samples) for item in searched.controls]
    assert len(set(texts)) == len(texts)
    assert attack(method="search").baselines(searched.cases, searched.prepared, searched.runtime) == {}


# what is missing ------------------------------------------------------------------------------------------


def test_what_is_missing_is_said(aligned: Transfer, searched: Transfer) -> None:
    with pytest.raises(UsageError, match="public texts"):
        attack().prepare(aligned.target(), None, aligned.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(attack().run(aligned.target(), aligned.cases, None, aligned.runtime))
    target = searched.target(access=Access.LABEL)
    with pytest.raises(AccessDenied):
        list(searched.attack().run(target, searched.cases, searched.prepared, searched.runtime))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 50, "heads": 4}, "no multiple"),
        ({"search_steps": 40}, "more than max_tokens"),
        ({"penalties": (-1.0,)}, "at least 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=message):
        attack("default", **options)


def test_it_is_an_attack_with_control_baselines_and_forecast() -> None:
    for contract in (Attack, HasControl, HasBaselines, HasForecast):
        assert isinstance(attack(), contract)


def test_the_paper_preset_is_the_published_one() -> None:
    paper = attack("paper").config
    assert (paper.pairs, paper.max_tokens, paper.places, paper.learning_rate) == (1000, 32, 32, 1e-4)
    assert (paper.beam, paper.top_k, paper.search_steps, paper.repetition_penalty) == (30, 30, 32, 1.5)
