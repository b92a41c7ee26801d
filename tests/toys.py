"""Toy plugins whose behaviour a test controls: an attack, an evaluator, defenses, a source, observers.

Data, modality and models are those of `micore.testing.toys`, made small. A test changes what happens by
`monkeypatch.setattr(ScriptedAttack, "before_case", ...)` and the like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from micore.artifacts import Bundle, PluginUse
from micore.contracts import Case, Config, Defense, Measurement, NoConfig, Prepared, Reconstruction, Subject
from micore.data import DataRequest
from micore.errors import DataError
from micore.external import External, SourceRequest
from micore.hookspecs import hookimpl
from micore.kit.training import TrainingConfig
from micore.models import restore_network
from micore.reference import panel_identity
from micore.registry import Registry
from micore.runs.request import AttackRequest
from micore.runtime import Random, Runtime
from micore.specs import (
    AttackSpec,
    DatasetSpec,
    DefenseSpec,
    EvaluatorSpec,
    ModalitySpec,
    ModelSpec,
    SourceSpec,
)
from micore.target import Target
from micore.testing.toys import ToyDataset, open_toy
from micore.threat import Access
from micore.training import train

SMALL = {"size": 4, "n_classes": 4, "per_class": 6}
QUICK = TrainingConfig(epochs=2, batch_size=8, augment="none")
CPU = torch.device("cpu")


# data ---------------------------------------------------------------------------------------------


class WithoutSplits(ToyDataset):
    """Toy data that lacks some splits (option ``lacks`` of `open_bare`)."""

    lacks: tuple[str, ...] = ()

    def split(self, name: str) -> Any:
        """Return a split; DataError for one that is left out."""
        if name in self.lacks:
            raise DataError(f"no {name}")
        return super().split(name)


def open_bare(location: str | None, **options: Any) -> ToyDataset:
    """Open toy data without the splits that the location names, such as ``bare:public+holdout``."""
    dataset = open_toy(None, **options)
    bare = WithoutSplits(settings=dataset.settings)
    object.__setattr__(bare, "lacks", tuple((location or "public").split("+")))
    return bare


class Empty(ToyDataset):
    """Toy data without any private sample."""

    def split(self, name: str) -> Any:
        """Return an empty split."""
        whole = super().split(name)
        return replace(whole, samples=whole.samples[:0], labels=None)


def open_empty(location: str | None, **options: Any) -> Empty:
    """Open data without samples."""
    return Empty(settings=open_toy(None, **options).settings)


def build_rigid(n_classes: int, input_spec: Any) -> nn.Module:
    """Build a network that takes no arguments."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes))


# the attack ---------------------------------------------------------------------------------------


class ScriptedConfig(Config):
    """What the scripted attack does."""

    steps: int = Field(2, ge=1, description="gradient steps")
    restarts: int = Field(2, ge=1, description="samples of each case")
    prepare_queries: int = Field(5, ge=0, description="queries of the preparation")


class ScriptedAttack:
    """White-box ascent from noise, in tiles of constant size, with two places for a test to interfere."""

    Config = ScriptedConfig
    PRESETS = {"default": {}, "smoke": {"steps": 1}, "paper": {"steps": 4}}  # noqa: RUF012
    PREPARE_FIELDS = frozenset({"prepare_queries"})

    def __init__(self, config: ScriptedConfig) -> None:
        self.config = config

    def before_prepare_step(self, step: int) -> None:
        """For tests."""

    def before_batch(self, cases: Sequence[Case]) -> None:
        """For tests."""

    def before_case(self, case: Case) -> None:
        """For tests."""

    def prepare(self, target: Target, public: Any, runtime: Runtime) -> Prepared | None:
        """Ask the target about public samples, one at a time, and keep their mean."""
        saved = runtime.checkpoints.load() or {"step": 0, "sum": torch.zeros(target.n_classes)}
        total = saved["sum"]
        for step in range(saved["step"], self.config.prepare_queries):
            self.before_prepare_step(step)
            total = total + target.module(public.take([step])).detach().softmax(dim=1).sum(dim=0)
            runtime.checkpoints.offer(lambda step=step, total=total: {"step": step + 1, "sum": total})
        return Prepared(state={"mean": total, "size": target.input_spec.shape[-1]})

    def prior(self, prepared: Prepared, runtime: Runtime) -> NoisePrior:
        """Return noise."""
        return NoisePrior(int(prepared.state["size"]))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Climb all cases at once, then give them back one after another."""
        self.before_batch(cases)
        count = self.config.restarts
        shape = (count, *target.input_spec.shape)
        samples = torch.cat([runtime.rng("start", case.id).uniform(shape) for case in cases])
        labels = torch.tensor([case.label for case in cases]).repeat_interleave(count)
        owners = [case.id for case in cases for _ in range(count)]
        for _ in range(self.config.steps):
            samples, values = self._step(target, samples, labels, owners, runtime.tile)
        for index, case in enumerate(cases):
            self.before_case(case)
            rows = slice(index * count, (index + 1) * count)
            yield Reconstruction(case=case, samples=samples[rows], scores=values[rows], history={"loss": [0.5]})

    def _step(
        self, target: Target, samples: Tensor, labels: Tensor, owners: Sequence[str], tile: int
    ) -> tuple[Tensor, Tensor]:
        moved, values = [], []
        for start in range(0, len(samples), tile):
            part = samples[start : start + tile]
            padding = tile - len(part)
            full = torch.cat([part, part[:1].expand(padding, *part.shape[1:])]).clone().requires_grad_()
            wanted = torch.cat([labels[start : start + tile], labels[:1].expand(padding)])
            with target.ledger.owned_by(owners[start : start + tile], padding):
                logits = target.module(full).gather(1, wanted[:, None])
                gradient = torch.autograd.grad(logits.sum(), full)[0]
            moved.append((full + 0.1 * gradient.sign()).clamp(0, 1).detach()[: len(part)])
            values.append(logits.detach()[: len(part), 0])
        return torch.cat(moved), torch.cat(values)


class LabelAttack(ScriptedAttack):
    """Asks for labels only, prepares nothing, and has no prior."""

    PREPARE_FIELDS = frozenset()
    prior = None  # type: ignore[assignment]

    def prepare(self, target: Target, public: Any, runtime: Runtime) -> None:
        """Prepare nothing."""

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Give back noise, checked once per sample by label; nothing else."""
        for case in cases:
            self.before_case(case)
            samples = runtime.rng("start", case.id).uniform((2, *target.input_spec.shape))
            with target.ledger.owned_by([case.id]):
                hits = target.labels(samples) == case.label
            yield Reconstruction(case=case, samples=samples, scores=hits.float())


class NoisePrior:
    """Uniform noise."""

    def __init__(self, size: int) -> None:
        self.size = size

    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw noise."""
        return rng.uniform((n, 1, self.size, self.size))


# judges, defenses, sources ------------------------------------------------------------------------


class MeanEvaluator:
    """Measures the brightness of each subject; asks no model."""

    Config = NoConfig
    name = "mean"

    def __init__(self, config: NoConfig) -> None:
        self.config = config

    def evaluate(self, subjects: Sequence[Subject], reference: Any, runtime: Runtime) -> list[Measurement]:
        """Return one figure per subject."""
        return [self._one(subject, float(self._values(subject, reference).mean())) for subject in subjects]

    def _values(self, subject: Subject, reference: Any) -> Tensor:
        return torch.cat([item.samples.double().mean(dim=(1, 2, 3)) for item in subject.reconstructions])

    def _one(self, subject: Subject, value: float) -> Measurement:
        cases = {item.case.id: value for item in subject.reconstructions}
        return Measurement(
            name=self.name, subject=subject.name, value=value, interval=None, n=len(cases),
            clusters=len(cases), unit="1", direction="up", evaluator=f"{self.name}@0", per_case=cases,
        )  # fmt: skip


class ModelEvaluator(MeanEvaluator):
    """Asks the evaluator model."""

    name = "judged"

    def _values(self, subject: Subject, reference: Any) -> Tensor:
        judge = reference.judge()
        found = [judge.module(judge.adapter(item.samples)).softmax(dim=1) for item in subject.reconstructions]
        return torch.cat([part[:, 0] for part in found])


class PanelEvaluator(MeanEvaluator):
    """Asks all evaluator models together."""

    name = "panel"

    def _values(self, subject: Subject, reference: Any) -> Tensor:
        found = [
            judge.module(judge.adapter(item.samples)).softmax(dim=1)[:, 0]
            for judge in reference.panel() for item in subject.reconstructions
        ]  # fmt: skip
        return torch.cat(found)

    def _one(self, subject: Subject, value: float) -> Measurement:
        return replace(super()._one(subject, value), evaluator=f"panel@{self.identity}")

    def evaluate(self, subjects: Sequence[Subject], reference: Any, runtime: Runtime) -> list[Measurement]:
        """Return one figure per subject, marked with all judges."""
        self.identity = panel_identity(reference.panel())
        return super().evaluate(subjects, reference, runtime)


class HalfDefenseConfig(Config):
    """Of `HalfDefense`."""

    factor: float = Field(0.5, gt=0, description="of the scores")


class HalfDefense(Defense):
    """Scales the scores."""

    Config = HalfDefenseConfig

    def adapt_output(self, scores: Tensor, inputs: Any) -> Tensor:
        """Scale."""
        return scores * self.config.factor


class CountingMonitor(Defense):
    """Counts the queries, and keeps the largest score that was given."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.queries, self.largest = 0, 0.0

    def observe(self, scores: Tensor, inputs: Any) -> None:
        """Count."""
        self.queries += len(inputs)
        self.largest = max(self.largest, float(scores.max()))

    def findings(self) -> dict[str, Any]:
        """Tell of queries, if there were any."""
        return {"queries": self.queries, "largest": self.largest} if self.queries else {}


class TailDefense(Defense):
    """Adds a layer behind the network."""

    def adapt_model(self, module: nn.Module) -> nn.Module:
        """Add an identity with a parameter."""
        tail = nn.Linear(4, 4)
        return nn.Sequential(module, tail)


def load_from_memory(request: SourceRequest) -> Bundle:
    """Load a target that ``mem:SEED`` names: an untrained one."""
    return replace(toy_bundle(registry(), seed=int(request.place)), source=request.uri)


def ask_oracle(request: SourceRequest) -> External:
    """Open a target that ``oracle:SEED`` names, which only answers; with ``answers=label`` by labels."""
    bundle = toy_bundle(registry(), seed=int(request.place))
    module = restore_network(registry(), bundle)[0].eval()
    labels = request.options.get("answers") == "label"
    dataset = request.require_dataset()

    def respond(inputs: Tensor) -> Tensor:
        scores: Tensor = module(inputs).softmax(dim=1)
        return scores.argmax(dim=1) if labels else scores

    return External(
        card=request.card("oracle"), fingerprint=f"oracle-{request.place}-{len(dataset.classes)}", respond=respond,
        access=Access.LABEL if labels else Access.SCORES, notes=("an oracle",),
    )  # fmt: skip


# the plugin ---------------------------------------------------------------------------------------

HERE = "tests.toys"
THERE = "micore.testing.toys"


class ToyPlugin:
    """Offers all of it."""

    @hookimpl
    def mi_modalities(self) -> list[ModalitySpec]:
        """Offer grids."""
        return [ModalitySpec(name="toy", target=f"{THERE}:ToyModality", summary="Grids")]

    @hookimpl
    def mi_datasets(self) -> list[DatasetSpec]:
        """Offer planted grids, and defective ones."""
        targets = {"grids": f"{THERE}:open_toy", "bare": f"{HERE}:open_bare", "empty": f"{HERE}:open_empty"}
        return [
            DatasetSpec(name=name, target=target, summary="Toy", modality="toy", bundled=True, licence="CC0-1.0")
            for name, target in targets.items()
        ]

    @hookimpl
    def mi_models(self) -> list[ModelSpec]:
        """Offer the target's architecture and the judge's."""
        roles = ("classifier", "evaluator")
        return [
            ModelSpec(name="conv", target=f"{THERE}:build_toy", summary="Toy", modality="toy", roles=roles),
            ModelSpec(name="rigid", target=f"{HERE}:build_rigid", summary="Toy", modality="toy"),
            ModelSpec(name="mlp", target=f"{THERE}:build_other_toy", summary="Toy", modality="toy", roles=roles),
        ]

    @hookimpl
    def mi_sources(self) -> list[SourceSpec]:
        """Offer a scheme."""
        return [
            SourceSpec(name="memory", target=f"{HERE}:load_from_memory", summary="Toy", scheme="mem"),
            SourceSpec(name="oracle", target=f"{HERE}:ask_oracle", summary="Toy", scheme="oracle"),
        ]

    @hookimpl
    def mi_attacks(self) -> list[AttackSpec]:
        """Offer the scripted attacks."""
        common = {"summary": "Toy", "modality": "toy", "goal": "class"}
        return [
            AttackSpec(
                name="scripted", target=f"{HERE}:ScriptedAttack", access=Access.WHITE_BOX, needs=("public",),
                **common,
            ),
            AttackSpec(name="by-label", target=f"{HERE}:LabelAttack", access=Access.LABEL, **common),
            AttackSpec(name="elsewhere", target=f"{HERE}:LabelAttack", access=Access.LABEL,
                       summary="Toy", modality="other", goal="class"),
        ]  # fmt: skip

    @hookimpl
    def mi_defenses(self) -> list[DefenseSpec]:
        """Offer defenses."""
        return [
            DefenseSpec(name="half", target=f"{HERE}:HalfDefense", summary="Toy", stages=("inference",)),
            DefenseSpec(name="tail", target=f"{HERE}:TailDefense", summary="Toy", stages=("training",)),
            DefenseSpec(name="watch", target=f"{HERE}:CountingMonitor", summary="Toy", stages=("monitoring",)),
            DefenseSpec(name="alien", target=f"{HERE}:HalfDefense", summary="Toy", stages=("inference",),
                        modality="other"),
        ]  # fmt: skip

    @hookimpl
    def mi_evaluators(self) -> list[EvaluatorSpec]:
        """Offer judges; only ``mean`` runs by default."""
        common = {"summary": "Toy", "modality": "toy", "goals": ("class",)}
        return [
            EvaluatorSpec(name="mean", target=f"{HERE}:MeanEvaluator", default=True, **common),
            EvaluatorSpec(name="judged", target=f"{HERE}:ModelEvaluator", needs=("evaluator-model",), **common),
            EvaluatorSpec(name="panel", target=f"{HERE}:PanelEvaluator", needs=("evaluator-models",), **common),
            EvaluatorSpec(name="stranger", target=f"{HERE}:MeanEvaluator", summary="Toy", modality="toy",
                          goals=("prompt",)),
        ]  # fmt: skip


def registry(**further: object) -> Registry:
    """Return a registry of the toy plugin and further ones."""
    return Registry.from_plugins({"toy-plugin": ToyPlugin(), **further})


def toy_bundle(
    plugins: Registry, *, model: str = "conv", seed: int = 0, defenses: Sequence[PluginUse] = (), **options: Any
) -> Bundle:
    """Train a small target."""
    runtime = Runtime.create("cpu", seed=seed)
    data = DataRequest.parse("grids", {**SMALL, **options})
    return train(
        plugins, runtime, data=data, model=PluginUse(name=model), training=QUICK, defenses=defenses
    )  # fmt: skip


def toy_request(model: Any, attack: str = "scripted", **changes: Any) -> AttackRequest:
    """Return a small request; ``options`` are the attack's."""
    options = changes.pop("options", {})
    given = {"attack": PluginUse(name=attack, config=options), "model": str(model), "device": "cpu", "tile": 4}
    return AttackRequest(**{**given, **changes})
