"""Knowledge extraction: what a network learns of the classes from the reconstructions alone.

A student, an untrained network of the evaluator model's architecture, is trained on the reconstructions with their
labels and tested on real samples of the attacked classes: ``knowledge`` on held-out ones, ``knowledge-private`` on
those that the target was trained on. Reconstructions that fool a judge teach nothing, those that are all alike little.

Every subject of the run gets students of its own, of the same seeds and number of steps: prior samples show what can be
learned without an attack, ``holdout`` what real samples teach in the same number. No student is tested on a sample that
it learned from, the last step is kept, and nothing is chosen by a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_knowledge.lessons import Lessons, leaving_a_test, real, recovered, unseen
from mi_evaluator_knowledge.student import hits, plan_of, taught
from micore.contracts import Config, EvaluatorModel, Measurement, Reference, Subject
from micore.kit.measuring import Figure, Rows, measure
from micore.kit.training import Trainer
from micore.runtime import Runtime

IDENTITY = "knowledge@students"
"""Figures depend on the architecture of the evaluator model, and on none of its weights."""

SPLITS = {"knowledge": "holdout", "knowledge-private": "private"}


class KnowledgeConfig(Config):
    """Settings of the evaluator."""

    students: int = Field(3, ge=1, description="students of each subject, each of another seed")
    steps: int = Field(200, ge=1, description="training steps of a student, about")
    batch_size: int = Field(32, ge=2, description="samples of one step")
    learning_rate: float = Field(2e-3, gt=0, description="highest step size of the cosine schedule")
    augment: Literal["none", "light", "medium", "strong"] = Field("light", description="changes of what is taught")
    per_class: int = Field(200, ge=1, description="most real samples of a class that students are tested on")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True)
class Lesson:
    """One subject: what its students learn from, the labels (C,) that they tell apart, sorted, and notes."""

    rows: Rows
    lessons: Lessons
    classes: Tensor
    notes: tuple[str, ...]


class KnowledgeEvaluator:
    """Teach students with reconstructions (see the module's documentation)."""

    Config: ClassVar[type[Config]] = KnowledgeConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, int]]] = {"default": {}, "smoke": {"students": 1, "steps": 20}}
    """Checks use ``smoke``."""

    def __init__(self, config: KnowledgeConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike.

        Raises: ModelError without an evaluator model, or when its architecture comes with its weights.
        """
        judge = reference.judge()
        all_rows = [Rows.of(in_order(subject), reference.truth) for subject in subjects]
        attacked = torch.cat([rows.labels for rows in all_rows]).unique()
        tests = {
            split: real(reference.dataset, split, attacked, self.config.per_class, reference.modality, runtime)
            for split in SPLITS.values()
        }
        found = []
        for rows in all_rows:
            lesson = self._lesson(rows, tests["holdout"], reference, judge)
            found += self._measured(lesson, tests, judge, runtime)
        return found

    def _lesson(self, rows: Rows, holdout: Lessons | None, reference: Reference, judge: EvaluatorModel) -> Lesson:
        lessons, lost = recovered(rows, reference.modality)
        lessons, spared = leaving_a_test(lessons, holdout) if holdout is not None else (lessons, ())
        classes = rows.labels.unique()
        notes = (
            f"chance {1 / len(classes):.3g}",
            f"{self.config.students} students ({judge.bundle.card.model.name}, from scratch), {len(lessons)} samples",
        )
        return Lesson(rows, lessons, classes, (*notes, *lost, *spared))

    def _measured(
        self, lesson: Lesson, tests: Mapping[str, Lessons | None], judge: EvaluatorModel, runtime: Runtime
    ) -> list[Measurement]:
        """Teach the students of one subject and measure them on every split."""
        students, reason = self._students(lesson, judge, runtime)
        found = []
        for name, split in SPLITS.items():
            test = tests[split]
            left = unseen(test, lesson.lessons, lesson.classes) if test is not None else None
            if not students or left is None or not len(left):
                found.append(_nothing(name, lesson, reason or f"no labelled {split} samples to test on"))
            else:
                found.append(self._figure(name, lesson, left, students))
        return found

    def _students(self, lesson: Lesson, judge: EvaluatorModel, runtime: Runtime) -> tuple[list[Trainer], str]:
        """Return the students, or none and the reason."""
        if len(lesson.classes) < 2:
            return [], "a student of one class has nothing to learn"
        if len(lesson.lessons) < 2:
            return [], "fewer than two samples to learn from"
        plan = plan_of(
            len(lesson.lessons), steps=self.config.steps, batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate, augment=self.config.augment,
        )  # fmt: skip
        seeds = range(self.config.students)
        return [taught(judge, lesson.lessons, lesson.classes, plan, seed, runtime) for seed in seeds], ""

    def _figure(self, name: str, lesson: Lesson, test: Lessons, students: Sequence[Trainer]) -> Measurement:
        """Return the mean over classes of the share of their real samples that students know, mean over students."""
        answers = torch.stack([hits(student, test, lesson.classes) for student in students])
        each = ", ".join(f"{float(value):.3f}" for value in answers.mean(dim=1))
        notes = (*lesson.notes, f"tested on {len(test)} samples; of all of them the students know {each}")
        seat = {int(label): position for position, label in _seats(lesson.rows)}
        tested = Rows(
            subject=lesson.rows.subject, samples=(), case_ids=lesson.rows.case_ids,
            positions=torch.tensor([seat[int(label)] for label in test.labels]), labels=test.labels,
        )  # fmt: skip
        figure = Figure(name, answers.mean(dim=0), "share", "up", notes)
        return replace(measure(figure, tested, IDENTITY, resamples=self.config.resamples), n=len(lesson.lessons))


def in_order(subject: Subject) -> Subject:
    """Return a subject with its cases by their ids: what a student learns depends on the order of its samples."""
    return replace(subject, reconstructions=sorted(subject.reconstructions, key=lambda item: item.case.id))


def _seats(rows: Rows) -> list[tuple[int, int]]:
    """Return the first case of each label, as (position, label)."""
    first: dict[int, int] = {}
    for position, label in zip(rows.positions.tolist(), rows.labels.tolist(), strict=True):
        first.setdefault(label, position)
    return [(position, label) for label, position in first.items()]


def _nothing(name: str, lesson: Lesson, reason: str) -> Measurement:
    return Measurement(
        name=name, subject=lesson.rows.subject, value=float("nan"), interval=None, n=0, clusters=0, unit="share",
        direction="up", evaluator=IDENTITY, notes=(reason, *lesson.notes),
    )  # fmt: skip
