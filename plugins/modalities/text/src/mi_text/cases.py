"""What runs on texts attack: texts behind answers, prompts, and what a language model remembers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mi_text.evidence import CORPUS_KINDS, INSTANCE_KINDS, PROMPT_KINDS, Hole
from mi_text.splits import Facts, TextSplit
from micore.contracts import Case, Dataset, Truth
from micore.errors import DataError, UsageError
from micore.kit.choice import read_rows
from micore.runtime import derive_seed

CANARY = "canary"
"""The slot of planted secrets."""

SPREAD = 100
"""How many texts a run attacks when the user chooses none."""

CANDIDATES = 100
"""How many values, the true one among them, a hole of evidence ``candidates`` may be filled with."""

REFERENCES = 1024
"""How many secrets of a canary's format are ranked, the planted one among them."""

KINDS = {"instance": INSTANCE_KINDS, "prompt": PROMPT_KINDS, "corpus": CORPUS_KINDS}


def text_cases(goal: str, dataset: Dataset | None, choice: str | None, evidence: str | None) -> list[Case]:
    """Return what a run of goal instance, prompt or corpus attacks; observed evidence comes later, from the target.

    Raises: UsageError for an unknown kind of evidence, without a data set, and for a choice that does not fit.
    """
    kinds = KINDS[goal]
    kind = evidence or kinds[0]
    if kind not in kinds:
        raise UsageError(f"--evidence {kind}: goal {goal!r} of texts has none such", hint="one of " + ", ".join(kinds))
    if kind == "nothing":
        if choice is not None:
            raise UsageError("a whole corpus is attacked: there is nothing to choose", hint="leave --classes out")
        return [Case(id="corpus", goal=goal)]
    private = private_texts(dataset)
    rows = _rows(private, kind)
    chosen = rows[:SPREAD] if choice is None else [rows[place] for place in read_rows(choice, len(rows))]
    if not chosen:
        raise UsageError(f"no private text has what evidence {kind!r} hides", hint="give a data set that notes it")
    return [
        Case(id=f"{kind}-{row}", goal=goal, evidence=None if goal != "corpus" else hole(private, row, kind))
        for row in chosen
    ]


def private_texts(dataset: Dataset | None) -> TextSplit:
    """Return the private split of a text data set; UsageError without one."""
    if dataset is None:
        raise UsageError("this goal needs the private texts that the evidence comes from", hint="give --data")
    return text_split(dataset, "private")


def text_split(dataset: Dataset, name: str) -> TextSplit:
    """Return a split of a text data set.

    Raises: DataError when it has none of this name, or it is not of texts.
    """
    split = dataset.split(name)
    if not isinstance(split, TextSplit):
        raise DataError(f"data set {dataset.name!r} is not of texts")
    return split


def row_of(case: Case) -> int:
    """Return the row of the private text that a case is about."""
    return int(case.id.rpartition("-")[2])


def facts_of(case: Case, dataset: Dataset) -> Facts:
    """Return what is known of the slots of the private text that a case is about."""
    return text_split(dataset, "private").facts_of(row_of(case))


def text_truths(cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
    """Return the private text behind each case, by case id; a whole corpus has none."""
    known = [case for case in cases if "-" in case.id]
    if not known:
        return {}
    private = text_split(dataset, "private")
    return {case.id: Truth(sample=[private.texts[row_of(case)]]) for case in known}


# holes ----------------------------------------------------------------------------------------------------


def hole(private: TextSplit, row: int, kind: str) -> Hole:
    """Hide a slot of a text: the canary's secret, or the slot that stands last; ``prefix`` hides all from there on."""
    text, facts = private.texts[row], private.facts_of(row)
    slot = (
        CANARY
        if kind == CANARY
        else max((name for name in facts if name != CANARY), key=lambda n: text.rindex(facts[n]))
    )
    if kind == "prefix":
        slot = min((name for name in facts if name != "name" and name != CANARY), key=lambda n: text.index(facts[n]))
    place = text.index(facts[slot]) if kind == "prefix" else text.rindex(facts[slot])
    before, after = text[:place], text[place + len(facts[slot]) :]
    if kind == "prefix":
        return Hole(kind=kind, before=before, slot=slot)
    if kind == "masked":
        return Hole(kind=kind, before=before, after=after, slot=slot)
    return Hole(kind=kind, before=before, after=after, slot=slot, candidates=_candidates(private, row, slot))


def _candidates(private: TextSplit, row: int, slot: str) -> tuple[str, ...]:
    """Return the true value among others: made ones of its format for a canary, else those of other texts."""
    true = private.facts_of(row)[slot]
    rng = random.Random(derive_seed("candidates", row, slot, private.fingerprint))
    if slot == CANARY:
        pool = {_like(true, rng) for _ in range(4 * REFERENCES)} - {true}
        n = REFERENCES - 1
    else:
        pool = {facts[slot] for facts in private.facts if slot in facts} - {true}
        n = CANDIDATES - 1
    others = sorted(pool)
    rng.shuffle(others)
    found = [true, *others[:n]]
    rng.shuffle(found)
    return tuple(found)


def _like(secret: str, rng: random.Random) -> str:
    """Return a random secret of the same format: other digits in the places of digits."""
    return "".join(rng.choice("0123456789") if sign.isdigit() else sign for sign in secret)


def _rows(private: TextSplit, kind: str) -> list[int]:
    """Return the first row of each different text that has what is to be hidden."""
    seen: dict[str, int] = {}
    for row, text in enumerate(private.texts):
        if _hides(private.facts_of(row), kind):
            seen.setdefault(text, row)
    return sorted(seen.values())


def _hides(facts: Facts, kind: str) -> bool:
    if kind not in CORPUS_KINDS:
        return True
    if kind == CANARY:
        return CANARY in facts
    named = {name for name in facts if name != CANARY}
    return bool(named - {"name"}) if kind == "prefix" else bool(named)
