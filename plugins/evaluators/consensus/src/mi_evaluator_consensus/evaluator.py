"""What several independent classifiers agree on.

An attack searches for what a target takes for a class, and it may find patterns that mean nothing to people and that a
single judge takes for the class too: type-I adversarial examples. Patterns that fool one network often fail with
another, and some do not survive noise and blur. So a reconstruction counts here when a quorum of at least three judges
puts its class first. Networks of one architecture are fooled alike, so that they share one vote.

- ``first-judge-accuracy``: what the first judge alone accepts, to compare.
- ``consensus-accuracy``: what a quorum of all judges accepts; ``consensus-all``: what every judge accepts.
- ``stable-accuracy``: what a quorum accepts as it is, with noise, and with blur (pictures).
- ``false-positive-share``: of all that the first judge accepts, classes together, how much the quorum rejects.

Beside the controls of the run stands ``adversarial-noise``: noise that was fitted to the first judge. It holds nothing
of the class, so what the consensus accepts of it is the consensus's own error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_consensus.probe import probe
from mi_evaluator_consensus.stability import PICTURES, blurred, noisy
from micore.contracts import (
    Config,
    EvaluatorModel,
    HasBounds,
    Interval,
    Measurement,
    Modality,
    Reference,
    Samples,
    Subject,
)
from micore.kit.measuring import Figure, Rows, batches_of, measure
from micore.kit.statistics import cluster_bootstrap
from micore.kit.training import placed
from micore.reference import panel_identity
from micore.runtime import Runtime, derive_seed

NO_STABILITY = (
    "no stable-accuracy: samples of this modality are no tensors of one range, and cannot be changed a little"
)


class ConsensusConfig(Config):
    """Settings of the evaluator."""

    quorum: float = Field(2 / 3, gt=0, le=1, description="share of the votes that must put the class first")
    noise: float = Field(0.1, ge=0, le=1, description="deviation of the noise, as a share of the canonical range")
    blur: float = Field(1.0, ge=0, description="deviation of the Gaussian blur in pixels; pictures only")
    probes: int = Field(4, ge=0, description="samples of noise fitted to the first judge, for each class; 0: none")
    probe_steps: int = Field(50, ge=1, description="most gradient steps of that fit")
    batch_size: int = Field(256, ge=1, description="samples in one forward pass")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True)
class Verdicts:
    """Which judges put the class of each sample first, bool (J, N), and what a quorum makes of it, (N,).

    stable: (N,), None where samples cannot be changed a little.
    """

    votes: Tensor
    agreed: Tensor
    stable: Tensor | None = None


@dataclass(frozen=True)
class Panel:
    """Judges with their votes: an architecture has one, which its judges share; quorum: the share of votes needed."""

    judges: Sequence[EvaluatorModel]
    quorum: float

    @property
    def architectures(self) -> list[str]:
        """Name the architecture of each judge."""
        return [judge.bundle.card.model.name for judge in self.judges]

    @property
    def weights(self) -> Tensor:
        """The vote of each judge, float64 (J,)."""
        names = self.architectures
        return torch.tensor([1 / names.count(name) for name in names], dtype=torch.float64)

    def agrees(self, votes: Tensor) -> Tensor:
        """Return where the quorum is reached, (N,); votes: bool (J, N)."""
        total = self.weights.sum()
        return self.weights @ votes.double() >= self.quorum * total - 1e-9


def puts_first(logits: Tensor, labels: Tensor) -> Tensor:
    """Return where the claimed class comes first, alone, (N,); never where a logit is not finite."""
    own = logits.gather(1, labels[:, None])
    return ((logits >= own).sum(dim=1) == 1) & logits.isfinite().all(dim=1)


class ConsensusEvaluator:
    """Judge with several classifiers together (see the module's documentation)."""

    Config: ClassVar[type[Config]] = ConsensusConfig

    def __init__(self, config: ConsensusConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject alike, and noise fitted to the first judge.

        Raises: ModelError with fewer than three evaluator models; DataError for a subject without samples of a class.
        """
        panel = Panel(reference.panel(), self.config.quorum)
        identity = f"consensus@{panel_identity(panel.judges)}"
        all_rows = [Rows.of(subject, reference.truth) for subject in subjects]
        bounds = bounds_of(reference.modality, all_rows[0].samples)
        if bounds is not None and self.config.probes:
            labels = all_rows[0].labels.unique().tolist()
            fooling = probe(
                panel.judges[0], labels, all_rows[0].samples[0], bounds, n=self.config.probes,
                steps=self.config.probe_steps, runtime=runtime,
            )  # fmt: skip
            all_rows.append(Rows.of(fooling))
        notes = notes_of(panel, bounds)
        found = []
        for rows in all_rows:
            verdicts = self._verdicts(panel, rows, bounds, reference.modality, runtime)
            for figure in figures(verdicts, notes):
                found.append(measure(figure, rows, identity, resamples=self.config.resamples))
            found.append(self._false_positives(verdicts, rows, identity, notes))
        return found

    def _verdicts(
        self, panel: Panel, rows: Rows, bounds: tuple[float, float] | None, modality: Modality,
        runtime: Runtime,
    ) -> Verdicts:  # fmt: skip
        """Ask every judge for the samples as they are and, where that is possible, changed a little."""
        samples = modality.join(rows.samples)
        votes = self._votes(panel.judges, samples, rows.labels, runtime)
        agreed = panel.agrees(votes)
        if bounds is None:
            return Verdicts(votes, agreed)
        changed = [noisy(rows, self.config.noise, bounds, runtime)]
        if samples.ndim == PICTURES:
            changed.append(blurred(samples, self.config.blur))
        stable = agreed
        for others in changed:
            stable = stable & panel.agrees(self._votes(panel.judges, others, rows.labels, runtime))
        return Verdicts(votes, agreed, stable)

    @torch.no_grad()
    def _votes(self, judges: Sequence[EvaluatorModel], samples: Samples, labels: Tensor, runtime: Runtime) -> Tensor:
        parts = batches_of(samples, self.config.batch_size)

        def logits(judge: EvaluatorModel) -> Tensor:
            inputs = (judge.adapter(placed(part, runtime)).to(runtime.device) for part in parts)
            return torch.cat([judge.module(batch).float().cpu() for batch in inputs])

        return torch.stack([puts_first(logits(judge), labels) for judge in judges])

    def _false_positives(self, verdicts: Verdicts, rows: Rows, identity: str, notes: tuple[str, ...]) -> Measurement:
        """Measure over all samples that the first judge accepts: a class weighs as much as it has of them."""
        accepted = verdicts.votes[0]
        doubted = (~verdicts.agreed).double()
        values, labels = doubted[accepted], rows.labels[accepted]
        name = "false-positive-share"
        said = f"of the {len(values)} samples of {len(accepted)} that the first judge accepts"
        per_case = {
            rows.case_ids[position]: float(doubted[accepted & (rows.positions == position)].mean())
            for position in rows.positions[accepted].unique().tolist()
        }
        return Measurement(
            name=name, subject=rows.subject, value=float(values.mean()),  # NaN when there is none
            interval=_interval(values, labels, derive_seed(identity, name, rows.subject), self.config.resamples),
            n=len(values), clusters=len(labels.unique()), unit="share", direction="none", evaluator=identity,
            per_case=per_case, notes=(said if len(values) else "the first judge accepts no sample", *notes),
        )  # fmt: skip


def _interval(values: Tensor, labels: Tensor, seed: int, resamples: int) -> Interval | None:
    if len(values) == 0:
        return None
    found = cluster_bootstrap(values.numpy(), labels.numpy(), rng=seed % 2**32, resamples=resamples)
    return Interval(low=found.low, high=found.high, level=found.level) if math.isfinite(found.low) else None


def notes_of(panel: Panel, bounds: tuple[float, float] | None) -> tuple[str, ...]:
    """Say who judges, and what their agreement must be read with."""
    names = panel.architectures
    notes = [f"{panel.quorum:.2g} of the votes must accept; judges: {', '.join(names)}"]
    if alike := sorted({name for name in names if names.count(name) > 1}):
        notes.append(f"judges of one architecture ({', '.join(alike)}) share one vote: they err alike")
    if len(set(names)) == 1:
        notes.append("all judges are of one architecture: what fools one may fool all")
    if bounds is None:
        notes.append(NO_STABILITY)
    return (*notes, *dict.fromkeys(note for judge in panel.judges for note in judge.notes))


def figures(verdicts: Verdicts, notes: tuple[str, ...]) -> Iterator[Figure]:
    """Yield the shares of all samples."""
    shares = {
        "consensus-accuracy": verdicts.agreed,
        "consensus-all": verdicts.votes.all(dim=0),
        "first-judge-accuracy": verdicts.votes[0],
    }
    if verdicts.stable is not None:
        shares["stable-accuracy"] = verdicts.stable
    for name, accepted in shares.items():
        yield Figure(name, accepted.double(), "share", "up", notes)


def bounds_of(modality: Modality, groups: Sequence[Samples]) -> tuple[float, float] | None:
    """Return the canonical range where samples are float tensors within one, else None."""
    tensors = all(isinstance(group, Tensor) and group.is_floating_point() for group in groups)
    return modality.bounds if tensors and isinstance(modality, HasBounds) else None
