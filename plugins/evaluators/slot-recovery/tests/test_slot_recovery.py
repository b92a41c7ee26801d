"""Slots of hand-made texts: which count, for whom, and what holes in training texts hide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch

from mi_evaluator_slot_recovery.evaluator import SlotRecoveryConfig, SlotRecoveryEvaluator
from mi_text.cases import hole
from mi_text.evidence import Hole
from mi_text.splits import Facts, TextSplit
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject
from micore.runtime import Runtime

N = 12


def facts(row: int) -> dict[str, str]:
    """Three in four texts have a phone number, two texts have an age."""
    known = {"name": f"Ann {chr(65 + row) * 3}", "email": f"a{row:02d}@mail.org"}
    if row % 4:
        known["phone"] = f"555-01{row:02d}"
    return known | ({"age": str(30 + row)} if row < 2 else {})


def text(known: Facts) -> str:
    return "; ".join(f"{slot} {value}" for slot, value in known.items()) + "."


ALL = [facts(row) for row in range(N)]
PRIVATE = TextSplit(tuple(map(text, ALL)), torch.zeros(N, dtype=torch.int64), tuple(ALL))
BARE = TextSplit(PRIVATE.texts, PRIVATE.labels)


def subject(guess: Callable[[int], Sequence[str]], name: str = "attack", kind: str = "embedding") -> Subject:
    goal = {"embedding": "instance", "outputs": "prompt"}.get(kind, "corpus")
    items = []
    for row in range(N):
        evidence = hole(PRIVATE, row, kind) if goal == "corpus" else None
        samples = list(guess(row))
        case = Case(id=f"{kind}-{row}", goal=goal, evidence=evidence)
        items.append(Reconstruction(case=case, samples=samples, scores=torch.zeros(len(samples))))
    return Subject(name=name, reconstructions=items)


def measure(
    *subjects: Subject, private: TextSplit = PRIVATE, least_cases: int = 5
) -> dict[tuple[str, str], Measurement]:
    dataset = SimpleNamespace(name="toy", split=lambda name: private)
    unused = SimpleNamespace()
    reference = Reference(modality=unused, dataset=dataset, target=None)
    evaluator = SlotRecoveryEvaluator(SlotRecoveryConfig(resamples=200, least_cases=least_cases))
    assert isinstance(evaluator, Evaluator)
    found = evaluator.evaluate(subjects, reference, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


def perfect(row: int) -> list[str]:
    return [PRIVATE.texts[row]]


def noise(row: int) -> list[str]:
    return [text(facts((row + 5) % N) | {"age": "99"})]


@pytest.mark.parametrize("kind", ["embedding", "outputs"])
def test_a_perfect_attack_recovers_every_slot_and_another_text_none(kind: str) -> None:
    found = measure(subject(perfect, kind=kind), subject(noise, "no-target", kind))
    assert {name for _, name in found} == {"slot-name", "slot-email", "slot-phone", "slots"}
    for (who, _), item in found.items():
        assert item.value == (1.0 if who == "attack" else 0.0)
        assert (item.unit, item.direction) == ("share", "up")
        assert item.evaluator.split("@")[0] == "slot-recovery"


def test_a_kind_is_counted_over_the_cases_that_have_it() -> None:
    found = measure(subject(lambda row: [f"Phone 5 5 5 - 01{row:02d}"]))
    phone = found["attack", "slot-phone"]
    assert (phone.value, phone.n, phone.clusters) == (1.0, 9, 9)
    assert "embedding-4" not in phone.per_case
    assert found["attack", "slot-email"].value == 0.0
    each = [1 / len(facts(row)) if row % 4 else 0.0 for row in range(N)]
    assert list(found["attack", "slots"].per_case.values()) == pytest.approx(each)
    assert found["attack", "slots"].value == pytest.approx(sum(each) / N)


def test_rare_kinds_have_no_figure_of_their_own() -> None:
    found = measure(subject(perfect))
    assert any("age (2)" in note for note in found["attack", "slots"].notes)
    assert measure(subject(perfect), least_cases=2)["attack", "slot-age"].n == 2


def test_only_the_best_sample_counts_for_slots() -> None:
    found = measure(subject(lambda row: ["nothing", *perfect(row)]), subject(lambda row: [], "empty"))
    assert {item.value for item in found.values()} == {0.0}


def test_texts_without_facts_have_no_figures() -> None:
    assert measure(subject(perfect), private=BARE) == {}


# holes ----------------------------------------------------------------------------------------------------


def test_a_hole_hides_one_value() -> None:
    found = measure(subject(perfect, kind="masked"))
    assert found["attack", "hole-accuracy"].value == 1.0
    assert found["attack", "hole-accuracy"].n == N
    assert ("attack", "slot-name") not in found  # it was seen
    assert not any(name == "hole-top5" for _, name in found)


def test_repeating_the_evidence_recovers_nothing() -> None:
    def seen(row: int) -> list[str]:
        held = hole(PRIVATE, row, "masked")
        return [held.before + held.after]

    assert {item.value for item in measure(subject(seen, kind="masked")).values()} == {0.0}


def test_a_prefix_hides_all_that_follows() -> None:
    found = measure(subject(lambda row: [f"email a{row:02d}@mail.org"], kind="prefix"))
    assert {name for _, name in found} == {"slot-email", "slot-phone", "slots", "hole-accuracy"}
    assert found["attack", "hole-accuracy"].value == 1.0  # the e-mail address is what comes next
    assert found["attack", "slot-phone"].value == 0.0


def test_candidates_have_ranks_and_a_level_of_chance() -> None:
    def ranked(row: int) -> list[str]:
        """Put the true value first in even rows, fourth in odd ones, and last in row 11."""
        held = hole(PRIVATE, row, "candidates")
        others = [value for value in held.candidates if value != facts(row)[held.slot]]
        place = len(others) if row == N - 1 else 3 * (row % 2)
        order = [*others[:place], facts(row)[held.slot], *others[place:]]
        return [held.filled(value) for value in order]

    sizes = [len(hole(PRIVATE, row, "candidates").candidates) for row in range(N)]
    found = measure(subject(ranked, kind="candidates"))
    first, top = found["attack", "hole-accuracy"], found["attack", "hole-top5"]
    assert first.value == pytest.approx(6 / 12)
    assert top.value == pytest.approx(11 / 12)
    chance = sum(1 / size for size in sizes) / N
    assert f"chance: {chance:.3f} ({min(sizes)} to {max(sizes)} candidates)" in first.notes


def test_equal_guesses_are_one() -> None:
    def stubborn(row: int) -> list[str]:
        held = hole(PRIVATE, row, "candidates")
        others = [value for value in held.candidates if value != facts(row)[held.slot]]
        return [others[0]] * 8 + [facts(row)[held.slot]]

    found = measure(subject(stubborn, kind="candidates"))
    assert found["attack", "hole-accuracy"].value == 0.0
    assert found["attack", "hole-top5"].value == 1.0


def test_a_value_that_stands_elsewhere_too_is_no_secret() -> None:
    known: Facts = {"city": "Bonn", "age": "41"}
    private = TextSplit(("Bonn: aged 41, lives in Bonn",) * N, None, (known,) * N)
    case = Case(id="masked-0", goal="corpus", evidence=hole(private, 0, "masked"))
    assert isinstance(case.evidence, Hole)
    assert case.evidence.slot == "city"
    item = Reconstruction(case=case, samples=["Bonn: aged 41, lives in Bonn"], scores=torch.zeros(1))
    assert measure(Subject(name="attack", reconstructions=[item]), private=private) == {}


def test_other_cases_of_a_corpus_have_no_figures() -> None:
    canary: Facts = {"canary": "123456"}
    private = TextSplit(("The code is 123456.",), None, (canary,))
    cases = [
        Case(id="canary-0", goal="corpus", evidence=Hole(kind="canary", before="The code is ", slot="canary")),
        Case(id="corpus", goal="corpus"),
    ]
    items = [Reconstruction(case=case, samples=["The code is 123456."], scores=torch.zeros(1)) for case in cases]
    assert measure(Subject(name="attack", reconstructions=items), private=private) == {}
