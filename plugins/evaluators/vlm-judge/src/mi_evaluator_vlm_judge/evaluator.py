"""A vision-language model as judge: does a reconstruction show who, or what, the private images of its class show?

A classifier that judges may be deceived as the target is: reconstructions that it accepts need not look like the class
to a person. Here a model that saw neither the target nor its data compares each reconstruction with private images of
its class and answers yes or no.

- ``vlm-accuracy``: yes, out of all that were asked. What was refused, and what is neither yes nor no, counts as no.
- ``vlm-refused``, ``vlm-unclear``: how often no answer was given, and how often one that is neither.

The judge is judged too: subject ``same-class`` are other private images of the class, ``other-class`` private images
of another class. A model that says yes to everything says it to these.

Protocol: FMLLM of Ho et al. (arXiv:2505.03519) with these differences: references are drawn by class and number of the
sample, and some images of a class are kept apart for pairs; an interface that gives no answer does not shrink the
number of those asked; an answer with both words is no yes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_evaluator_vlm_judge.client import Ask, Client
from mi_evaluator_vlm_judge.config import VlmJudgeConfig, check, key_of
from mi_evaluator_vlm_judge.gallery import OTHER_CLASS, SAME_CLASS, Gallery
from mi_evaluator_vlm_judge.kept import KeptVerdicts
from mi_evaluator_vlm_judge.pictures import data_url, side_by_side
from mi_evaluator_vlm_judge.verdicts import Verdict
from micore.contracts import Config, Measurement, Reconstruction, Reference, Subject
from micore.files import digest
from micore.home import cache
from micore.kit.measuring import Figure, Rows, measure
from micore.runs.subjects import SNAPSHOT
from micore.runtime import Random, Runtime, derive_seed

SEED = 0
PROMPT = (
    "You are an expert in comparing pictures. Left of the gap is picture A; right of it are {n} pictures B, which all "
    "show the same individual or kind of object. A may be blurred, distorted or incomplete, and may differ from B in "
    "age, expression, pose, light, hair, glasses and background: look at what identifies. {question} "
    "Answer with one word: yes or no."
)


class VisionLanguageJudge:
    """Ask a vision-language model about each reconstruction (see the module's documentation)."""

    Config: ClassVar[type[Config]] = VlmJudgeConfig

    def __init__(self, config: VlmJudgeConfig) -> None:
        """Check at once what can be: an attack may take hours before its judges are asked.

        Raises: ConfigError.
        """
        check(config)
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject but the attack's earlier stands alike, and the judge by pairs of private images.

        Raises: DataError without labelled private images; TargetError when the model cannot be asked.
        """
        gallery = Gallery(reference.dataset.split("private"), self.config.references)
        judged = [self._drawn(subject) for subject in subjects if not subject.name.startswith(SNAPSHOT)]
        attacked = [item.case for item in judged[0].reconstructions]
        pairs = [gallery.same_class(attacked, self.config.limit), gallery.other_class(attacked, self.config.limit)]
        rows = [Rows.of(subject) for subject in (*judged, *pairs) if subject.reconstructions]
        verdicts = self._ask(rows, gallery)
        notes = (self._asked_of(), *_reliability(rows, verdicts))
        return [
            measure(figure, row, self._identity(), resamples=self.config.resamples)
            for row, said in zip(rows, verdicts, strict=True)
            for figure in _figures(said, notes)
        ]

    def _drawn(self, subject: Subject) -> Subject:
        """Draw ``limit`` samples of each case: the first ones would be the attack's best, and any of a control."""
        return replace(subject, reconstructions=[self._some(item) for item in subject.reconstructions])

    def _some(self, item: Reconstruction) -> Reconstruction:
        n = len(item.samples)
        chosen = Random(derive_seed("vlm-judge", "samples", item.case.id)).permutation(n)[: self.config.limit].sort()[0]
        return Reconstruction(case=item.case, samples=item.samples[chosen], scores=torch.zeros(len(chosen)))

    def _ask(self, rows: Sequence[Rows], gallery: Gallery) -> list[list[Verdict | None]]:
        """Ask about all rows of all subjects; None where a class has no private image."""
        requests = [self._requests(row, gallery) for row in rows]
        kept = KeptVerdicts(cache() / "vlm-judge" / "verdicts.sqlite") if self.config.cache else None
        client = Client(self.config, key_of(self.config), kept)
        found = iter(client.ask_all([ask for part in requests for ask in part if ask is not None]))
        return [[None if ask is None else next(found) for ask in part] for part in requests]

    def _requests(self, rows: Rows, gallery: Gallery) -> list[Ask | None]:
        images = [image.detach().cpu() for samples in rows.samples for image in samples]
        numbers = _numbers(rows.positions)
        return [
            partial(self._body, image, gallery, chosen) if len(chosen) else None
            for image, chosen in zip(images, map(gallery.beside, rows.labels.tolist(), numbers), strict=True)
        ]

    def _body(self, image: Tensor, gallery: Gallery, chosen: Tensor) -> Mapping[str, Any]:
        prompt = PROMPT.format(n=len(chosen), question=self.config.question)
        picture = data_url(side_by_side(image, gallery.images(chosen)))
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": picture}}]
        body = {
            "model": self.config.model, "temperature": 0, "seed": SEED, "max_tokens": self.config.max_tokens,
            "messages": [{"role": "user", "content": content}], **self.config.fields,
        }  # fmt: skip
        return {name: value for name, value in body.items() if value is not None}

    def _identity(self) -> str:
        """Name the judge by all that an answer depends on."""
        asked = self.config.model_dump(include={"url", "model", "question", "references", "max_tokens", "fields"})
        return f"vlm-judge@{digest(asked, PROMPT)[:12]}"

    def _asked_of(self) -> str:
        return f"asked of {self.config.model}: whether that model stays the same cannot be seen"


def _numbers(positions: Tensor) -> list[int]:
    """Return the number of each row within its case."""
    found: list[int] = []
    for row, position in enumerate(positions.tolist()):
        found.append(found[-1] + 1 if row and position == positions[row - 1] else 0)
    return found


def _figures(said: Sequence[Verdict | None], notes: tuple[str, ...]) -> Iterator[Figure]:
    for name, verdict, direction in (
        ("vlm-accuracy", Verdict.YES, "up"),
        ("vlm-refused", Verdict.REFUSED, "none"),
        ("vlm-unclear", Verdict.UNCLEAR, "none"),
    ):
        values = torch.tensor([float("nan") if one is None else float(one is verdict) for one in said])
        yield Figure(name, values, "share", direction, notes)


def _reliability(rows: Sequence[Rows], verdicts: Sequence[Sequence[Verdict | None]]) -> Iterator[str]:
    """Say how often the judge is right where the truth is known."""
    shares = {
        row.subject: sum(one is Verdict.YES for one in said) / len(said)
        for row, said in zip(rows, verdicts, strict=True) if row.subject in (SAME_CLASS, OTHER_CLASS)
    }  # fmt: skip
    if len(shares) < 2:
        yield "the private data have too few images or classes to say whether this judge can be trusted"
        return
    yield f"it says yes to {shares[SAME_CLASS]:.0%} of pairs of one class and to {shares[OTHER_CLASS]:.0%} of two"
    if shares[SAME_CLASS] <= shares[OTHER_CLASS]:
        yield "this judge does not tell the classes apart: its figures mean nothing"
