"""The three games: on targets that are written down, and on the planted problem."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from mi_attack_pii_extraction.attack import QUERIES, PersonalDataConfig, PersonalDataExtraction
from mi_text.adapter import UNTOKENIZED
from mi_text.evidence import Hole
from mi_text.reference_model import SMOKE_REFERENCE
from mi_text.splits import TextSplit
from micore.contracts import Case, HasControl, HasForecast, Reconstruction
from micore.errors import BudgetExceeded, DataError, UsageError
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Budget, Ledger

CPU = Runtime(device=torch.device("cpu"))
PUBLIC = TextSplit(("call nobody at noon", "mail nobody at night"))
CORPUS = Case(id="corpus", goal="corpus")


def remote(written: Sequence[str], costs: dict[str, list[float]], budget: int | None = None) -> Target:
    """A target somewhere else that writes these texts in turn and knows the log-likelihoods of some."""
    turn = itertools.cycle(written)
    spec = InputSpec(shape=(16,), options={UNTOKENIZED: True})
    return Target(
        lambda texts: torch.zeros(len(texts), 1), access=Access.SCORES, adapter=lambda texts: texts, input_spec=spec,
        classes=("text",), ledger=Ledger(budget=Budget(queries=budget)), runtime=CPU, role="language-model",
        services={
            "generate": (Access.LABEL, lambda texts, **_: [next(turn) for _ in texts]),
            "likelihoods": (Access.SCORES, lambda texts: [costs.get(text, [-5.0]) for text in texts]),
        },
    )  # fmt: skip


def play(target: Target, case: Case, **options: object) -> Reconstruction:
    quick = {**SMOKE_REFERENCE, "reference_steps": 2, "continuations": 4}
    attack = PersonalDataExtraction(PersonalDataConfig.model_validate({**quick, **options}))
    (item,) = attack.run(target, [case], attack.prepare(target, PUBLIC, CPU), CPU)
    return item


# extraction -----------------------------------------------------------------------------------------------

TEXTS = ["call 555-010-9999", "call 555-010-9999!", "mail a@b.cd or 900-12-3456", "nothing"]
COSTS = {"call 555-010-9999": [-3.0, -3.0], "call 555-010-9999!": [-4.0], "mail a@b.cd or 900-12-3456": [-1.0, -2.0]}


def test_values_are_ordered_by_the_texts_that_mention_them() -> None:
    target = remote(TEXTS, COSTS)
    item = play(target, CORPUS, samples=8)
    assert item.samples == ["555-010-9999", "a@b.cd", "900-12-3456"] or item.samples == [
        "555-010-9999", "900-12-3456", "a@b.cd",
    ]  # fmt: skip
    assert item.scores.tolist() == [4.0, 2.0, 2.0]
    assert item.latents is not None
    assert item.latents.tolist() == [[4.0, -3.0], [2.0, -1.5], [2.0, -1.5]]
    assert target.ledger.total.queries == 8 + 3  # a likelihood for each different text with a value


def test_values_are_ordered_by_the_likelihood_of_their_surest_text() -> None:
    item = play(remote(TEXTS, COSTS), CORPUS, samples=4, ranking="likelihood", keep=2)
    assert set(item.samples) == {"a@b.cd", "900-12-3456"}
    assert item.scores.tolist() == [-1.5, -1.5]


def test_what_the_reference_writes_too_is_left_out() -> None:
    public = TextSplit(("call 555-010-9999",))
    options: dict[str, object] = {**SMOKE_REFERENCE, "reference_steps": 150, "samples": 8}
    found = {}
    for subtract in (True, False):
        options["subtract_reference"] = subtract
        attack = PersonalDataExtraction(PersonalDataConfig.model_validate(options))
        target = remote(TEXTS, COSTS)
        spec = InputSpec(shape=(40,), options=dict(target.input_spec.options))
        target.input_spec = spec
        (item,) = attack.run(target, [CORPUS], attack.prepare(target, public, CPU), CPU)
        found[subtract] = set(item.samples)
    assert found == {False: {"555-010-9999", "a@b.cd", "900-12-3456"}, True: {"a@b.cd", "900-12-3456"}}


def test_nothing_found_is_an_empty_text() -> None:
    item = play(remote(["nothing"], {}), CORPUS, samples=4)
    assert (item.samples, item.scores.tolist()) == ([""], [0.0])


def test_a_budget_makes_fewer_texts() -> None:
    target = remote(TEXTS, COSTS, budget=QUERIES * 2 + 1)
    item = play(target, CORPUS, samples=8)
    assert not item.complete
    assert item.history["drawn"] == [2.0]
    with pytest.raises(BudgetExceeded, match="one text"):
        play(remote(TEXTS, COSTS, budget=1), CORPUS, samples=8)


# holes ----------------------------------------------------------------------------------------------------

HOLE = Hole(kind="masked", before="call ", after=" now", slot="phone")
CASE = Case(id="masked-0", goal="corpus", evidence=HOLE)
NUMBERS = [" 555-000-0001 now", " 555-000-0002", " 555-000-0003 or 555-000-0004", " her"]
FILLED = {
    "call 555-000-0001 now": [-4.0, -4.0], "call 555-000-0002 now": [-9.0], "call 555-000-0003 now": [-3.0, -3.0, -3.0],
    "call 555-000-0004 now": [-4.0, -4.0],
}  # fmt: skip


def test_the_proposed_value_of_the_least_perplexity_is_chosen() -> None:
    """Not the first of the alphabet; and values of equal perplexity are all there."""
    target = remote(NUMBERS, FILLED)
    item = play(target, CASE, evidence="masked")
    assert item.samples == [HOLE.filled(f"555-000-000{place}") for place in (3, 1, 4, 2)]
    assert item.scores.tolist() == [-3.0, -4.0, -4.0, -9.0]
    assert target.ledger.cases["masked-0"].queries == 4 + 4


def test_sums_order_otherwise_than_means() -> None:
    item = play(remote(NUMBERS, FILLED), CASE, evidence="masked", score="likelihood", keep=3)
    assert item.samples == [HOLE.filled(f"555-000-000{place}") for place in (1, 4, 2)]
    assert item.scores.tolist() == [-8.0, -8.0, -9.0]


def test_a_ratio_subtracts_the_reference() -> None:
    item = play(remote(NUMBERS, FILLED), CASE, evidence="masked", score="ratio")
    assert item.latents is not None
    torch.testing.assert_close(item.scores, item.latents[:, 0] - item.latents[:, 1])


def test_confidence_weighs_likelihoods_by_how_often_a_value_was_proposed() -> None:
    """Ethicist, section 3.3: counts times likelihoods, as shares of all that was proposed."""
    often = [*NUMBERS, " 555-000-0004", " 555-000-0004"]
    item = play(remote(often, FILLED), CASE, evidence="masked", score="confidence", continuations=len(often), keep=10)
    assert item.latents is not None
    values = [text.removeprefix(HOLE.before).removesuffix(HOLE.after) for text in item.samples]
    counts = torch.tensor([float(sum(value in text for text in often)) for value in values])
    assert counts.max() > 1
    weights = counts * item.latents[:, 0].exp()
    torch.testing.assert_close(item.scores, weights / weights.sum())
    assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)


def test_given_candidates_are_all_ranked_and_nothing_is_drawn() -> None:
    hole = Hole(kind="candidates", before="call ", after=" now", slot="phone",
                candidates=("555-000-0001", "555-000-0002", "555-000-0003"))  # fmt: skip
    target = remote([], FILLED)
    item = play(target, Case(id="candidates-0", goal="corpus", evidence=hole), evidence="candidates")
    assert item.samples == [hole.filled(f"555-000-000{place}") for place in (3, 1, 2)]
    assert target.ledger.total.queries == 3


def test_a_hole_for_which_nothing_is_proposed_stays_empty() -> None:
    item = play(remote([" her"], {}), CASE, evidence="masked")
    assert item.samples == ["call  now"]


# on the planted problem -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("pii-extraction")


def test_hidden_values_are_recovered_and_a_model_that_never_saw_them_does_not(toy: Trial) -> None:
    attack = toy.attack()
    assert isinstance(attack, HasControl)
    assert isinstance(attack, HasForecast)
    target, found = toy.run(attack)
    assert toy.recovered(found) == 1
    assert toy.recovered(list(attack.control(toy.cases, toy.prepared, toy.runtime))) < 0.5
    most = attack.forecast(1, 64).per_case.queries
    assert all(0 < spent.queries <= most for spent in target.ledger.cases.values())
    assert target.ledger.shared.queries == 0


def test_the_true_one_of_given_candidates_is_found(toy: Trial) -> None:
    cases = toy.lab.cases(toy.setting, "corpus", "candidates")
    found = list(toy.attack(evidence="candidates").run(toy.target(), cases, toy.prepared, toy.runtime))
    assert toy.recovered(found) == 1


def test_a_budget_that_ends_leaves_the_cases_before(toy: Trial) -> None:
    target, found = toy.run(budget=25)
    assert target.ledger.total.queries <= 25
    assert 0 < len(found) < len(toy.cases)


def test_what_is_missing_or_does_not_fit_is_said(toy: Trial) -> None:
    with pytest.raises(UsageError, match="public texts"):
        toy.attack().prepare(toy.target(), None, toy.runtime)
    with pytest.raises(DataError, match="not prepared"):
        list(toy.attack().run(toy.target(), toy.cases, None, toy.runtime))
    with pytest.raises(UsageError, match="no candidates"):
        list(toy.attack(evidence="candidates").run(toy.target(), toy.cases, toy.prepared, toy.runtime))
    with pytest.raises(UsageError, match="holds NoneType"):
        list(toy.attack().run(toy.target(), [CORPUS], toy.prepared, toy.runtime))
