"""Evaluator models: independent networks that judge, trained once per data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from micore.artifacts import Bundle, PluginUse
from micore.contracts import Dataset, EvaluatorModel, Modality
from micore.data import DataRequest
from micore.errors import ModelError, UnknownNameError
from micore.external import HasFace
from micore.files import digest
from micore.home import cache
from micore.kit.training import TrainingConfig
from micore.models import build_network, restore_network
from micore.reference import IDENTITY_DIGITS
from micore.registry import Registry
from micore.runtime import Runtime, derive_seed
from micore.training import train_on

JUDGE_STEPS = 1500
"""Training steps of a judge, by which the epochs follow from the size of the data (within 3 to 60)."""


def judge_training(n_samples: int) -> TrainingConfig:
    """Return how a judge of a data set of this size is trained; augmented unlike targets are by default."""
    plan = TrainingConfig(augment="strong")
    epochs = round(JUDGE_STEPS * plan.batch_size / n_samples)
    return plan.model_copy(update={"epochs": min(60, max(3, epochs))})


def evaluator_models(
    registry: Registry,
    runtime: Runtime,
    request: DataRequest,
    dataset: Dataset,
    target: HasFace | None,
    given: str | None,
    n_judges: int = 1,
) -> list[Bundle]:
    """Return so many evaluator models: the user's first, if one is given, then trained ones; cached.

    Each has another architecture than the target and than those before it, as long as there is one, and a
    seed of its own.

    Raises: ModelError when the user's model judges other classes, or is the target itself; UnknownNameError
    when no architecture but the target's can judge.
    """
    found = [given_model(given, dataset, target)] if given is not None else []
    names = _architectures(registry, dataset.modality, target, [judge.card.model.name for judge in found])
    while len(found) < n_judges:
        found.append(_trained(registry, runtime, request, dataset, target, *next(names)))
    return found


def given_model(path: str, dataset: Dataset, target: HasFace | None) -> Bundle:
    """Load a user's evaluator model.

    Raises: ModelError when it judges other classes, or is the target itself.
    """
    return _checked(Bundle.load(Path(path)), dataset, target)


def _trained(
    registry: Registry, runtime: Runtime, request: DataRequest, dataset: Dataset, target: HasFace | None,
    architecture: str, repetition: int,
) -> Bundle:  # fmt: skip
    """Return the judge of this data set with this architecture: the same one for every run's seed."""
    again = (repetition,) if repetition else ()
    seed = derive_seed("evaluator-model", dataset.fingerprint, architecture, *again) % 2**31
    split, classes = dataset.judging()
    training = judge_training(len(split))
    key = digest(dataset.fingerprint, architecture, training.model_dump(), seed, runtime.device.type)
    path = cache() / "evaluators" / f"{key}.safetensors"
    if path.exists():
        return _checked(Bundle.load(path), dataset, target)
    bundle = train_on(
        registry, replace(runtime, seed=seed, precision="fp32"), data=request, dataset=dataset,
        split=split, classes=classes, model=PluginUse(name=architecture), training=training, defenses=(),
        role="evaluator", output=path,
    )  # fmt: skip
    return _checked(bundle, dataset, target)


def _architectures(
    registry: Registry, modality: str, target: HasFace | None, used: Sequence[str]
) -> Iterator[tuple[str, int]]:
    """Yield architectures other than the target's, unused ones first, each with how often it came before."""
    entries = registry.entries("model", modality)
    able = [entry.spec.name for entry in entries if "evaluator" in getattr(entry.spec, "roles", ())]
    taken = target.card.model.name if target is not None else None
    others = [name for name in able if name != taken]
    if not others:
        raise UnknownNameError(
            f"no installed model can judge modality {modality!r} besides the target's own",
            hint="install one with role 'evaluator', or give --evaluator-model",
        )
    yield from ((name, 0) for name in others if name not in used)
    for repetition in count(1):
        yield from ((name, repetition) for name in others)


def _checked(bundle: Bundle, dataset: Dataset, target: HasFace | None) -> Bundle:
    if tuple(bundle.card.classes[: len(dataset.classes)]) != tuple(dataset.classes):
        raise ModelError(
            f"the evaluator model judges {len(bundle.card.classes)} classes that do not begin with "
            f"the data set's {len(dataset.classes)}",
            hint="train it on the same data set",
        )
    if target is not None and bundle.fingerprint == target.fingerprint:
        raise ModelError(
            "the evaluator model is the target itself: it would grade its own attack",
            hint="give another --evaluator-model, or none to have one trained",
        )
    return bundle


def open_judge(
    registry: Registry, runtime: Runtime, bundle: Bundle, target: HasFace | None, modality: Modality
) -> EvaluatorModel:
    """Build an evaluator model's network, frozen, on the run's device."""
    module, _ = restore_network(registry, bundle)
    module.eval().requires_grad_(False)
    notes = independence(bundle, target).notes
    adapter = modality.adapter(bundle.card.input)
    fresh = partial(build_network, registry, bundle.card.model, input_spec=bundle.card.input, defenses=())
    return EvaluatorModel(bundle=bundle, module=runtime.place(module), adapter=adapter, notes=notes, fresh=fresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Independence:
    """What makes a judge independent of the target, fact by fact."""

    facts: Mapping[str, bool]

    @property
    def independent(self) -> bool:
        """Whether every fact holds."""
        return all(self.facts.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """One note for each fact that does not hold."""
        return tuple(
            f"evaluator model shares its {fact} with the target" for fact, holds in self.facts.items() if not holds
        )


def independence(judge: Bundle, target: HasFace | None) -> Independence:
    """Compare a judge with the target: weights, architecture, seed, augmentation."""
    if target is None:
        return Independence(facts={})
    if not target.card.training:  # nothing is known of it but what it answers
        return Independence(facts={"weights": judge.fingerprint != target.fingerprint})
    mine, other = judge.card, target.card
    return Independence(
        facts={
            "weights": judge.fingerprint != target.fingerprint,
            "architecture": mine.model.name != other.model.name,
            "seed": mine.seed != other.seed,
            "augmentation": mine.training.get("augment") != other.training.get("augment"),
        }
    )


def judge_name(index: int) -> str:
    """Return what a run calls its evaluator model of this position, counted from 0."""
    return "evaluator-model" if index == 0 else f"evaluator-model-{index + 1}"


def describe_judge(judge: Bundle, target: HasFace | None) -> dict[str, Any]:
    """Return what a report says of an evaluator model."""
    check = independence(judge, target)
    return {
        "model": judge.card.model.name,
        "fingerprint": judge.fingerprint,
        "identity": judge.fingerprint[:IDENTITY_DIGITS],
        "classes": list(judge.card.classes),
        "metrics": dict(judge.card.metrics),
        "seed": judge.card.seed,
        "independence": dict(check.facts),
        "independent": check.independent,
    }
