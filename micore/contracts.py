"""The contracts between the core and what plugins implement.

Nothing here is inherited from: an object that has these methods is one. Samples are whatever the
modality says: a tensor of pictures or waveforms in the canonical range, a list of strings, graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from micore.defense import Config, Defense, Fitting, NoConfig
from micore.inputs import InputSpec
from micore.records import Case, Interval, Measurement, Reconstruction, Samples, Snapshot, Truth
from micore.reference import IDENTITY_DIGITS, EvaluatorModel, Reference, Subject
from micore.threat import Spending

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micore.runtime import Random, Runtime
    from micore.target import Target

__all__ = [
    "IDENTITY_DIGITS", "Attack", "BaseUse", "Case", "Config", "Dataset", "DatasetOpener", "Defense", "Evaluator",
    "EvaluatorModel", "Fitting", "Forecast", "HasBaselines", "HasBounds", "HasClassControls", "HasControl",
    "HasDeployment", "HasFloors", "HasForecast", "HasGenerator", "HasNotes", "HasObservations", "HasPrior", "HasTruth",
    "Interval", "Measurement", "Modality", "ModelBuilder", "NoConfig", "Prepared", "Prior", "Reconstruction",
    "Reference", "Samples", "ShowsDifferences", "Snapshot", "Split", "Subject", "Truth", "WrapsAttack",
]  # fmt: skip


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
class HasNotes(Protocol):
    """A data set that changed what it was given when it read it; each note says how, without a full stop."""

    notes: Sequence[str]


@runtime_checkable
class Modality(Protocol):
    """A sample type: how it fits a model, how it is stored, how a person sees it."""

    def adapter(self, spec: InputSpec) -> Callable[[Samples], Tensor]:
        """Return the differentiable conversion from canonical samples to the model's input."""

    def cases(
        self,
        goal: str,
        dataset: Dataset | None,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return what a run of this goal attacks; ``choice`` is the user's selection, such as ``0-4,7``.

        evidence: name of what the adversary holds of each sample, for goal ``instance``; None: the usual.
        """

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
class HasBounds(Protocol):
    """A modality whose samples are float tensors that lie in one range, so that they can be changed a little."""

    bounds: tuple[float, float]
    """The ends of the canonical range, such as (0, 1)."""


@runtime_checkable
class HasObservations(Protocol):
    """A modality where the adversary holds what the target answered to the private samples themselves."""

    def observe(self, cases: Sequence[Case], dataset: Dataset, target: Target) -> list[Case]:
        """Return the cases with such evidence; others as they are.

        target: as its owner uses it, with the defenses of its answers: these queries are not the adversary's.
        """


@runtime_checkable
class HasDeployment(Protocol):
    """A modality whose targets are used within private data: on a graph, of which the adversary names the nodes."""

    def deployed(self, adapter: Callable[[Samples], Tensor], dataset: Dataset) -> Callable[[Samples], Tensor]:
        """Return the conversion that the target's own interface makes: it knows the private data, callers do not."""


@runtime_checkable
class HasTruth(Protocol):
    """A modality that knows the sample behind each case of other goals than ``class``."""

    def truths(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
        """Return the truth of each case, by its id."""


@runtime_checkable
class HasFloors(Protocol):
    """A modality that can answer cases of other goals than ``class`` without target and attack: more controls."""

    def floors(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
        """Return by name what the adversary has anyway, such as ``evidence`` and ``nearest-public``."""


@runtime_checkable
class HasClassControls(Protocol):
    """A modality that knows what judges of classes accept without an inversion: more controls of goal ``class``."""

    def class_controls(
        self, attack: Sequence[Reconstruction], dataset: Dataset
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return by name reconstructions of as many samples as the attack's; private data may be used."""


@runtime_checkable
class ShowsDifferences(Protocol):
    """A modality that can mark where recovered samples differ from the truth."""

    def show_against(self, truth: Samples, samples: Samples, limit: int) -> str:
        """Return a self-contained HTML fragment of up to ``limit`` samples; truth: a sample, of length 1."""


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
        """Yield one reconstruction per case, in any order.

        Raises, after what went well was given back: CaseFailed with the reason of each case that did not.
        """


@runtime_checkable
class HasPrior(Protocol):
    """An attack whose prior can be sampled without the target: the run adds that control."""

    def prior(self, prepared: Prepared, runtime: Runtime) -> Prior:
        """Build the prior from what was prepared."""


@runtime_checkable
class HasControl(Protocol):
    """An attack that can do its work unguided, for instances above all: the run adds that control, ``no-target``."""

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Yield for each case as many samples as `run` does, from the evidence and the prior alone."""


@runtime_checkable
class HasBaselines(Protocol):
    """An attack that knows what simpler means make of the same evidence: the run adds each as a control."""

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return by name what they give for the cases, such as ``nearest-public``, without asking the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseUse:
    """The attack that a wrapper is built around, as its config names it."""

    name: str
    preset: str = "default"
    options: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class WrapsAttack(Protocol):
    """An attack around another one, which the user names (``-p base=gmi``).

    A wrapper whose ``PREPARE_FIELDS`` are empty prepares what its base does, and shares it with the base's own runs.

    A wrapper declares at least the access that its base needs. One that shows its base a model of its own instead of
    the target says so with a class attribute ``ATTACKS_OWN_MODEL = True``: to that model any base has full access.
    """

    def base_use(self) -> BaseUse:
        """Name the base, with its preset and options."""

    def wrap(self, base: Attack) -> None:
        """Take the base, built; called once, before anything else.

        Raises: ConfigError when the base lacks what the wrapper needs of it.
        """

    def wrapped(self) -> Attack:
        """Return the base that was taken."""


@runtime_checkable
class HasGenerator(Protocol):
    """An attack whose prior is one network that may be trained further."""

    def generator(self, prepared: Prepared, runtime: Runtime) -> nn.Module:
        """Build the network: called with the latents of reconstructions (B, ...) and labels (B,), it gives samples."""

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights (a state dict) of that network."""


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
