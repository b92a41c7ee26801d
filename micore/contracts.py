"""The contracts between the core and what plugins implement.

Nothing here is inherited from: an object that has these methods is one. Samples are whatever the
modality says: a tensor of pictures or waveforms in the canonical range, a list of strings, graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.threat import Spending

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micore.artifacts import Bundle
    from micore.kit.training import Trainer, TrainingBatch
    from micore.runtime import Random, Runtime
    from micore.target import Target

Samples = Any
"""Samples of one modality: a tensor (N, ...) in the canonical range, or a sequence of N items."""


class Config(BaseModel):
    """Base of the configurations of attacks, defenses, evaluators and trainings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoConfig(Config):
    """The configuration of a plugin that has nothing to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to reconstruct, with all that the adversary holds of it.

    id: unique in the run and stable over runs, such as ``class-3``; it seeds the case's randomness.
    label: the class under attack (goal ``class``).
    evidence: what the adversary observed (an embedding, a masked sample, a graph's features...).
    """

    id: str
    goal: str
    label: int | None = None
    evidence: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What an attack gives back for one case.

    samples: n samples in the canonical range, best first.
    scores: the attack's own confidence in each of them, shape (n,); never the evaluator's.
    latents: where they stand in the prior, shape (n, ...), when there is one.
    history: the attack's progress, such as the loss every few steps.
    complete: False when the budget stopped the search early and this is the best so far.
    """

    case: Case
    samples: Samples
    scores: Tensor
    latents: Tensor | None = None
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval; ``level`` is its coverage, such as 0.95."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One figure of an evaluator.

    subject: what was judged: ``attack`` or a control such as ``prior-samples``, ``holdout``.
    direction: what more leakage looks like: ``up``, ``down`` or ``none``.
    n: samples behind the value; clusters: independent units (classes) behind the interval.
    per_case: the value for each case id.
    evaluator: name and identity of the judge; notes: what a reader must know to trust it.
    """

    name: str
    subject: str
    value: float
    interval: Interval | None
    n: int
    clusters: int
    unit: str
    direction: str
    evaluator: str
    per_case: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class Split(Protocol):
    """Part of a data set, read in batches."""

    @property
    def labels(self) -> Tensor | None:
        """Class of each sample, int64 (N,), or None when the adversary has none."""

    def __len__(self) -> int:
        """Count the samples."""

    def take(self, indices: Sequence[int] | Tensor) -> Samples:
        """Return these samples in the canonical range, on the CPU."""


@runtime_checkable
class Dataset(Protocol):
    """Private, holdout and public data of one setting.

    private: what the target is trained on; holdout: the same domain, never trained on;
    public: what the adversary has. ``judging`` trains the evaluator models: private data and,
    where it is labelled, public data as further classes; its labels begin with the private ones.
    """

    @property
    def name(self) -> str:
        """The name it was opened by, with its location."""

    @property
    def modality(self) -> str:
        """The name of its modality."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the private classes, by label."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content of all splits."""

    @property
    def input(self) -> InputSpec:
        """What a model trained on it takes."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options it was opened with, without places of this machine."""

    def split(self, name: str) -> Split:
        """Return ``private``, ``holdout`` or ``public``; DataError when it has none."""

    def judging(self) -> tuple[Split, tuple[str, ...]]:
        """Return the data that evaluator models are trained on, and all its class names."""


@runtime_checkable
class Modality(Protocol):
    """A sample type: how it fits a model, how it is stored, how a person sees it."""

    def adapter(self, spec: InputSpec) -> Callable[[Samples], Tensor]:
        """Return the differentiable conversion from canonical samples to the model's input."""

    def cases(
        self, goal: str, dataset: Dataset | None, bundle_classes: Sequence[str], choice: str | None
    ) -> list[Case]:
        """Return what a run of this goal attacks; ``choice`` is the user's selection, such as ``0-4,7``."""

    def augment(self, samples: Samples, strength: str, rng: Random) -> Samples:
        """Return randomly changed samples for training; ``strength``: none, light, medium, strong."""

    def pack(self, samples: Samples) -> dict[str, Tensor]:
        """Return samples as tensors to store."""

    def unpack(self, tensors: Mapping[str, Tensor]) -> Samples:
        """Return stored samples."""

    def join(self, parts: Sequence[Samples]) -> Samples:
        """Return several groups of samples as one."""

    def overlap(self, dataset: Dataset) -> Mapping[str, Any]:
        """Count public samples that equal or resemble private ones (a leak in the setting)."""

    def export(self, samples: Mapping[str, Samples], directory: Path) -> list[Path]:
        """Write previews that a person can open, one or more per key; return their paths."""

    def show(self, samples: Samples, limit: int) -> str:
        """Return a self-contained HTML fragment that shows up to ``limit`` samples."""


@runtime_checkable
class Prior(Protocol):
    """The adversary's generative model, with the labels it was conditioned on (if any)."""

    def sample(self, n: int, rng: Random) -> Samples:
        """Draw n samples without aiming at any class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What `Attack.prepare` made, as plain data: nested dicts and lists of tensors and JSON values."""

    state: Mapping[str, Any]


@runtime_checkable
class Attack(Protocol):
    """A published attack. `run` batches over (case x restart); results depend on no other case."""

    Config: ClassVar[type[Config]]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Config values by name; always ``default``, ``smoke`` (seconds on a CPU), ``paper``."""
    PREPARE_FIELDS: ClassVar[frozenset[str]]
    """The config fields that `prepare` depends on: with the target and the data, its cache key."""

    def __init__(self, config: Any) -> None:
        """Take a config of the class's own type."""

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Do what all cases share, such as training a prior. Long work checkpoints itself."""

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Yield one reconstruction per case, in any order."""


@runtime_checkable
class HasPrior(Protocol):
    """An attack whose prior can be sampled without the target: the run adds that control."""

    def prior(self, prepared: Prepared, runtime: Runtime) -> Prior:
        """Build the prior from what was prepared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an attack will spend on the target, counted before it runs (samples, not batches)."""

    preparation: Spending
    per_case: Spending


@runtime_checkable
class HasForecast(Protocol):
    """An attack that can count its cost in advance: ``mi plan`` shows it."""

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the cost of preparing and of one case."""


class Defense:
    """Base of defenses: each method is a hook that leaves things as they are; several compose."""

    Config: ClassVar[type[Config]] = NoConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Change the structure: a bottleneck, frozen layers, removed skips."""
        return module

    def adapt_data(self, split: Split) -> Split:
        """Change the training data."""
        return split

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Callable[[], Tensor]) -> Tensor:
        """Return the loss; ``task_loss()`` is the loss so far, computed only when called."""
        return task_loss()

    def adapt_training(self, trainer: Trainer) -> None:
        """Change optimiser, schedule or privacy engine."""

    def adapt_output(self, scores: Tensor, inputs: Samples) -> Tensor:
        """Change what the adversary sees of the scores (inference time)."""
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorModel:
    """An independent classifier that judges.

    module: on the run's device, in eval mode, without gradients; adapter: from canonical samples to
    its input; notes: what its figures must be read with (such as a shared architecture).
    """

    bundle: Bundle
    module: nn.Module
    adapter: Callable[[Samples], Tensor]
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The first digits of the bundle's fingerprint."""
        return self.bundle.fingerprint[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an evaluator judges: reconstructions of the attack or of a control."""

    name: str
    reconstructions: Sequence[Reconstruction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """All that judges may know and adversaries may not.

    dataset: the private data; target: the attacked bundle (for the check of independence), None for
    a remote one; evaluator_model: the independent classifier, when the evaluator asked for one.
    truth: by case id, for goals that recover an instance.
    """

    modality: Modality
    dataset: Dataset
    target: Bundle | None
    evaluator_model: EvaluatorModel | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)

    def judge(self) -> EvaluatorModel:
        """Return the evaluator model.

        Raises: ModelError when the run has none.
        """
        if self.evaluator_model is None:
            raise ModelError("this evaluator needs an evaluator model", hint="give --evaluator-model")
        return self.evaluator_model


@runtime_checkable
class Evaluator(Protocol):
    """An independent judge."""

    Config: ClassVar[type[Config]]

    def __init__(self, config: Any) -> None:
        """Take a config of the class's own type."""

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject in the same way, so that a figure stands beside its controls."""


class ModelBuilder(Protocol):
    """What a `ModelSpec` names: builds an untrained network that takes normalised input."""

    def __call__(self, n_classes: int, input_spec: InputSpec, **arguments: Any) -> nn.Module:
        """Build it; ModelError when the input does not fit the architecture."""


class DatasetOpener(Protocol):
    """What a `DatasetSpec` names: opens a data set with the user's options."""

    def __call__(self, location: str | None, **options: Any) -> Dataset:
        """Open it; DataError names the file or option at fault."""
