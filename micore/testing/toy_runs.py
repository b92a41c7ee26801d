"""Whole runs on the problem of grids, small and quick: what trackers are tried on.

The attack asks about noise by scores, the judge knows the places of the spots; neither is worth anything. All that a
run is made of is there: controls, intervals, a budget, a second sitting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch

from micore import runs
from micore.artifacts import PluginUse
from micore.contracts import (
    Case,
    Interval,
    Measurement,
    NoConfig,
    Prepared,
    Reconstruction,
    Reference,
    Split,
    Subject,
)
from micore.data import DataRequest
from micore.hookspecs import hookimpl
from micore.kit.statistics import cluster_bootstrap
from micore.kit.training import TrainingConfig
from micore.registry import Registry
from micore.runs import Run
from micore.runs.request import AttackRequest
from micore.runtime import Random, Runtime
from micore.specs import AttackSpec, DatasetSpec, EvaluatorSpec, ModalitySpec, ModelSpec
from micore.target import Target
from micore.testing.toys import template_contrast
from micore.threat import Access, Budget
from micore.training import train

HERE, TOYS = "micore.testing.toy_runs", "micore.testing.toys"
SAMPLES = 2
"""Of each case, and so the queries that a case costs."""

SMALL = {"size": 4, "n_classes": 4, "per_class": 6}
TRAINING = TrainingConfig.model_validate({"epochs": 2, "batch_size": 8, "augment": "none"})


class ToyNoise:
    """Ask the target about noise, best first; no paper, it is a toy."""

    Config: ClassVar[type[NoConfig]] = NoConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "smoke": {}, "paper": {}}
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: NoConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Keep the size of the grids."""
        return Prepared(state={"shape": torch.tensor(target.input_spec.shape)})

    def prior(self, prepared: Prepared, runtime: Runtime) -> ToyNoisePrior:
        """Return noise that has not met the target."""
        return ToyNoisePrior(tuple(prepared.state["shape"].tolist()))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Draw samples for each case and order them by the target's scores."""
        for case in cases:
            samples = runtime.rng("noise", case.id).uniform((SAMPLES, *target.input_spec.shape))
            with target.ledger.owned_by([case.id]):
                scores = target.scores(samples)[:, case.label or 0]
            order = scores.sort(descending=True, stable=True).indices
            history = {"score": [float(value) for value in scores]}
            yield Reconstruction(case=case, samples=samples[order], scores=scores[order], history=history)


class ToyNoisePrior:
    """Uniform noise."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def sample(self, n: int, rng: Random) -> torch.Tensor:
        """Draw n samples."""
        return rng.uniform((n, *self._shape))


class ToyContrast:
    """Compare with the class's own spots; no paper, it is a toy."""

    Config: ClassVar[type[NoConfig]] = NoConfig

    def __init__(self, config: NoConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject."""
        return [self._measure(subject) for subject in subjects if subject.reconstructions]

    def _measure(self, subject: Subject) -> Measurement:
        n = SMALL["n_classes"]
        per_case = {
            item.case.id: float(template_contrast(item.samples, item.case.label or 0, n).mean())
            for item in subject.reconstructions
        }
        found = cluster_bootstrap(list(per_case.values()), list(per_case), rng=0) if len(per_case) > 1 else None
        return Measurement(
            name="toy-contrast", subject=subject.name, value=sum(per_case.values()) / len(per_case),
            interval=Interval(low=found.low, high=found.high, level=found.level) if found else None,
            n=SAMPLES * len(per_case), clusters=len(per_case), unit="1", direction="up", evaluator="toy-contrast@1",
            per_case=per_case,
        )  # fmt: skip


class ToyRunPlugin:
    """Offers what a run needs."""

    @hookimpl
    def mi_modalities(self) -> Iterable[ModalitySpec]:
        """Offer grids."""
        return [ModalitySpec(name="toy", target=f"{TOYS}:ToyModality", summary="Grids of numbers")]

    @hookimpl
    def mi_datasets(self) -> Iterable[DatasetSpec]:
        """Offer planted grids."""
        summary = "Grids with two spots"
        return [
            DatasetSpec(name="toy-grids", target=f"{TOYS}:open_toy", summary=summary, modality="toy", licence="CC0")
        ]

    @hookimpl
    def mi_models(self) -> Iterable[ModelSpec]:
        """Offer the target's architecture."""
        return [ModelSpec(name="toy", target=f"{TOYS}:build_toy", summary="A convolution", modality="toy")]

    @hookimpl
    def mi_attacks(self) -> Iterable[AttackSpec]:
        """Offer the attack."""
        given: dict[str, Any] = {"modality": "toy", "goal": "class", "access": Access.SCORES}
        return [AttackSpec(name="toy-noise", target=f"{HERE}:ToyNoise", summary="Ask about noise", **given)]

    @hookimpl
    def mi_evaluators(self) -> Iterable[EvaluatorSpec]:
        """Offer the judge."""
        given: dict[str, Any] = {"modality": "toy", "goals": ("class",), "default": True}
        return [EvaluatorSpec(name="toy-contrast", target=f"{HERE}:ToyContrast", summary="Find the spots", **given)]


class ToyRuns:
    """Runs in a directory, observed by these plugins, modules or objects by name; ``report`` is told of failures."""

    def __init__(
        self,
        directory: Path,
        observers: Mapping[str, object] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = directory
        self.registry = Registry(report=report)
        for name, plugin in {"toy-run": ToyRunPlugin(), **(observers or {})}.items():
            self.registry.add(name, plugin)
        self.registry.require_sound()

    def attack(self, name: str = "run", *, cases: int | None = None) -> Run:
        """Attack; a budget stops the run after so many ``cases``, of four, at the least within the first."""
        with self._home():
            model = self.directory / "toy-target.safetensors"
            if not model.exists():
                runtime = Runtime(device=torch.device("cpu"))
                data = DataRequest.parse("toy-grids", SMALL)
                train(
                    self.registry, runtime, data=data, model=PluginUse(name="toy"), training=TRAINING, output=model
                )  # fmt: skip
            request = AttackRequest(
                attack=PluginUse(name="toy-noise"), model=str(model), device="cpu", tile=SAMPLES, batch=1,
                budget=_budget(cases),
            )  # fmt: skip
            return runs.attack(self.registry, request, self.directory / name)

    def resume(self, run: Run, *, cases: int | None = None) -> Run:
        """Go on with a run, now up to so many cases, or without a budget."""
        with self._home():
            return runs.resume(self.registry, run.directory, budget=_budget(cases))

    @contextmanager
    def _home(self) -> Iterator[None]:
        """Keep what is cached in the directory, not in the user's home."""
        before = os.environ.get("MI_HOME")
        os.environ["MI_HOME"] = str(self.directory / "home")
        try:
            yield
        finally:
            if before is None:
                del os.environ["MI_HOME"]
            else:
                os.environ["MI_HOME"] = before


def _budget(cases: int | None) -> Budget:
    return Budget(queries=None if cases is None else max(1, cases * SAMPLES))
