"""Rounds of correction: of each case's nearest texts, new ones are written and shown to the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mi_attack_vec2text.corrector import Corrector
from mi_text.guesses import Guesses
from mi_text.inverting import uniform_numbers
from micore.contracts import Reconstruction, Snapshot
from micore.errors import BudgetExceeded
from micore.runtime import Runtime
from micore.target import Target

FOUND = 0.99999
"""The cosine from which on a text is taken for the private one: the target cannot tell them apart."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How texts are corrected.

    rounds: at most so many; beam: texts of each case that a round begins with, and that are given back; branches: what
    is written from each of them, the likeliest text first and then samples; temperature: of the samples.
    """

    rounds: int
    beam: int
    branches: int
    temperature: float


@dataclass(kw_only=True)
class Course:
    """A case on its way: what was guessed, and how it stood after each round that asked the target something."""

    guesses: Guesses
    stands: list[Snapshot] = field(default_factory=list)
    nearness: list[float] = field(default_factory=list)

    @property
    def is_found(self) -> bool:
        """Whether no text could be nearer."""
        return bool(self.nearness) and self.nearness[-1] >= FOUND

    def ask(self, target: Target, texts: Sequence[str], beam: int) -> None:
        """Let the target embed texts, and note how the case stands then; BudgetExceeded."""
        before = self.guesses.queries
        self.guesses.ask(target, texts)
        best, cosines = filled(*self.guesses.nearest(beam), beam)
        self.nearness.append(float(cosines[0]))
        if self.guesses.queries > before:
            self.stands.append(Snapshot(queries=self.guesses.queries, samples=best))

    def given(self, beam: int, *, complete: bool) -> Reconstruction:
        """Return the nearest texts, or the likeliest ones where the target was not asked."""
        ranked = self.guesses.nearest(beam) if self.guesses.cosines else self.guesses.by_likelihood()
        samples, scores = filled(*ranked, beam)
        return Reconstruction(
            case=self.guesses.case, samples=samples, scores=scores, complete=complete or self.is_found,
            history={"cosine": self.nearness}, snapshots=tuple(self.stands),
        )  # fmt: skip


def filled(texts: Sequence[str], scores: Tensor, n: int) -> tuple[list[str], Tensor]:
    """Return exactly n texts: the first, or where there are fewer, the last of them again and again."""
    places = torch.arange(n).clamp(max=len(texts) - 1)
    return [texts[place] for place in places.tolist()], scores[places]


def correct(
    proposed: Sequence[Guesses], corrector: Corrector, target: Target, plan: Plan, runtime: Runtime
) -> Iterator[Reconstruction]:
    """Yield the cases after their rounds; all cases' texts of a round are written together.

    Raises, after all was given back: BudgetExceeded when the budget did not last for all rounds.
    """
    courses = [Course(guesses=guesses) for guesses in proposed]
    problem: BudgetExceeded | None = None
    try:
        with runtime.progress.track("correcting", plan.rounds) as report:
            for course in courses:
                course.ask(target, course.guesses.texts, plan.beam)
            for number in range(plan.rounds):
                open_courses = [course for course in courses if not course.is_found]
                written = write_round(open_courses, corrector, plan, number, runtime)
                for course, texts in zip(open_courses, written, strict=True):
                    course.ask(target, texts, plan.beam)
                report(number + 1)
    except BudgetExceeded as error:
        problem = error
    yield from (course.given(plan.beam, complete=problem is None) for course in courses)
    if problem is not None:
        raise problem


def write_round(
    courses: Sequence[Course], corrector: Corrector, plan: Plan, number: int, runtime: Runtime
) -> list[list[str]]:
    """Return what is written for each case: from each of its nearest texts the likeliest text and samples."""
    starts = [[text for text in course.guesses.nearest(plan.beam)[0] if text] for course in courses]
    texts = [text for part in starts for text in part]
    if not texts:
        return [[] for _ in courses]
    held = [course.guesses for course, part in zip(courses, starts, strict=True) for _ in part]
    answers = torch.stack([guesses.embeddings[text] for guesses, text in zip(held, texts, strict=True)])
    evidence = torch.stack([guesses.evidence for guesses in held])
    n = plan.branches - 1
    max_tokens = corrector.inverter.max_tokens
    greedy = torch.zeros(max_tokens, len(texts), device=runtime.device)
    found = [[text] for text in corrector.write(texts, answers, evidence, 0.0, greedy)]
    if n:
        drawn = uniform_numbers(
            [item.guesses.case for item in courses], plan.beam * n, max_tokens, runtime, "round", number
        )
        kept = torch.tensor([index < len(part) * n for part in starts for index in range(plan.beam * n)])
        samples = corrector.write(
            [text for text in texts for _ in range(n)], answers.repeat_interleave(n, dim=0),
            evidence.repeat_interleave(n, dim=0), plan.temperature, drawn[:, kept.to(drawn.device)],
        )  # fmt: skip
        found = [[*own, *samples[row * n : (row + 1) * n]] for row, own in enumerate(found)]
    rows = iter(found)
    return [[text for _ in part for text in next(rows)] for part in starts]
