"""Trained toy targets and judges, made once and shared by the checks of many plugins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from micore.answers import input_of, is_trained
from micore.artifacts import Bundle, Card, PluginUse
from micore.cli.quickstart import FIRST
from micore.contracts import Case, Defense, EvaluatorModel, HasObservations, Modality, ModelBuilder, Split
from micore.defending import labelled_public
from micore.inputs import InputSpec
from micore.kit.training import Trainer, accuracy, predict
from micore.models import deployment
from micore.reference import PANEL
from micore.registry import Registry
from micore.runtime import Runtime
from micore.specs import ANY
from micore.target import Target
from micore.testing.report import skip
from micore.testing.setting import ToySetting
from micore.testing.toys import ToyModality, toy_setting
from micore.threat import Access, Budget, Ledger

TARGET = "classifier"
"""Stands for the target of a setting, whatever its role."""

EVALUATOR = "evaluator"
"""Stands for its judge."""


class Lab:
    """The toy problems of a registry's modalities, with what was trained on them."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._settings: dict[str, list[ToySetting]] = {}
        self._bundles: dict[tuple[str, tuple[str, ...], str, str, int], Bundle] = {}

    def modality(self, name: str) -> Modality:
        """Return a modality's implementation; skip the check when it is not installed."""
        for entry in self.registry.entries("modality"):
            if entry.spec.name == name:
                modality: Modality = self.registry.load(entry)()
                return modality
        skip(f"modality {name!r} is not installed")

    def setting(self, modality: str, goals: Sequence[str] = (), roles: Sequence[str] = ()) -> ToySetting:
        """Return a modality's toy problem for one of these goals, with a target of one of these roles.

        For ``any`` the first there is; of several roles the first that there is a target of. Skips the check when there
        is none.
        """
        installed = [entry.spec.name for entry in self.registry.entries("modality")]
        # a plugin for any modality is tried on the one that is shown first, where it is there
        names = sorted(installed, key=lambda name: name != FIRST) if modality == ANY else [modality]
        for role in roles or (None,):
            for setting in (item for name in names for item in self._offered(name)):
                if (not goals or set(goals) & set(setting.goals)) and role in (None, setting.role):
                    return setting
        whose = "no installed modality" if modality == ANY else f"modality {modality!r}"
        what = f"toy problem for goal {' or '.join(goals)}" if goals else "toy problem"
        skip(f"{whose} offers a {what}" if modality == ANY else f"{whose} offers no {what}")

    def settings(self, modality: str) -> list[ToySetting]:
        """Return all toy problems of a modality; skips the check when there is none."""
        self.setting(modality)
        return self._offered(modality)

    def _offered(self, name: str) -> list[ToySetting]:
        if name not in self._settings:
            toy = getattr(self.modality(name), "toy", None)
            offered = toy() if toy is not None else []
            self._settings[name] = [offered] if isinstance(offered, ToySetting) else list(offered)
        return self._settings[name]

    def bundle(self, setting: ToySetting, role: str = TARGET, *, seed: int = 0) -> Bundle:
        """Return the trained target (or as ``evaluator`` the judge) of a setting."""
        key = (setting.modality, setting.goals, setting.model.name, role, seed)
        if key not in self._bundles:
            self._bundles[key] = train_toy(setting, self.modality(setting.modality), role, seed=seed)
        return self._bundles[key]

    def module(self, setting: ToySetting, role: str = TARGET) -> nn.Module:
        """Return a fresh network with the trained weights, as a run would hold it."""
        bundle = self.bundle(setting, role)
        return restored(setting, bundle, role)

    def judge(self, setting: ToySetting, runtime: Runtime) -> EvaluatorModel:
        """Return the independent classifier of a setting, on the runtime's device."""
        return self._opened(setting, self.bundle(setting, EVALUATOR), runtime)

    def panel(self, setting: ToySetting, runtime: Runtime) -> list[EvaluatorModel]:
        """Return as many judges as judge together: the first is that of `judge`, the others differ in their seed."""
        bundles = [self.bundle(setting, EVALUATOR, seed=seed) for seed in range(PANEL)]
        return [self._opened(setting, bundle, runtime) for bundle in bundles]

    def _opened(self, setting: ToySetting, bundle: Bundle, runtime: Runtime) -> EvaluatorModel:
        module = runtime.place(restored(setting, bundle, EVALUATOR).requires_grad_(False).eval())
        return EvaluatorModel(
            bundle=bundle, module=module, adapter=self.modality(setting.modality).adapter(bundle.card.input),
            fresh=lambda n_classes: _built(setting.judge_build, setting.judge_model, n_classes, bundle.card.input, ()),
        )  # fmt: skip

    def cases(self, setting: ToySetting, goal: str, evidence: str | None = None) -> list[Case]:
        """Return all cases of a setting, with what the target answered to them where that is their evidence."""
        modality, dataset = self.modality(setting.modality), setting.dataset
        cases = modality.cases(goal, dataset, dataset.classes, None, evidence)
        if isinstance(modality, HasObservations):
            return modality.observe(cases, dataset, self.target(setting, Access.SCORES))
        return cases

    def target(
        self, setting: ToySetting, access: Access, *, ledger: Ledger | None = None, runtime: Runtime | None = None,
        module: nn.Module | None = None,
    ) -> Target:  # fmt: skip
        """Return the trained toy target behind an access; ``module``: instead of a fresh copy of its network."""
        spec, modality = self.bundle(setting).card.input, self.modality(setting.modality)
        adapter = modality.adapter(spec)
        return Target(
            module or self.module(setting), access=access, adapter=adapter,
            input_spec=spec, classes=setting.dataset.classes, ledger=ledger or Ledger(),
            runtime=runtime or Runtime(device=torch.device("cpu")), role=setting.role,
            answering=deployment(modality, adapter, setting.dataset),
        )  # fmt: skip


def train_toy(
    setting: ToySetting, modality: Modality, role: str = TARGET, defenses: Sequence[Defense] = (), *, seed: int = 0
) -> Bundle:
    """Train a setting's target, or its judge on the judging data; the same bundle every time."""
    trainer, bundle = train_setting(setting, modality, Runtime(device=torch.device("cpu"), seed=seed), role, defenses)
    return replace(bundle, weights={k: v.detach().clone() for k, v in trainer.module.state_dict().items()})


def train_setting(
    setting: ToySetting, modality: Modality, runtime: Runtime, role: str, defenses: Sequence[Defense],
    **changes: Any,
) -> tuple[Trainer, Bundle]:  # fmt: skip
    """Train on any device, with changes to the training's config; the bundle holds no weights yet."""
    split, classes, builder, use = _part(setting, role)
    config = setting.training.model_copy(update=changes)
    with runtime.seeded(role, "parameters"):
        module = _built(builder, use, len(classes), setting.dataset.input, defenses)
    spec = input_of(module, setting.dataset.input)
    trainer = Trainer(
        module, split, config=config, adapter=modality.adapter(spec), augment=modality.augment,
        runtime=runtime, defenses=defenses, purpose=role, n_classes=len(classes),
        public=labelled_public(setting.dataset) if defenses else None,
    )  # fmt: skip
    if not is_trained(trainer.module):
        trainer.fit()
    card = Card(
        role=role if role == EVALUATOR else setting.role, modality=setting.modality, model=use, input=spec,
        classes=tuple(classes),
        data={"name": setting.dataset.name, "fingerprint": setting.dataset.fingerprint},
        training=config.model_dump(), seed=runtime.seed + int(role == EVALUATOR),
    )  # fmt: skip
    return trainer, Bundle(card=card, weights={}, source="toy")


def restored(setting: ToySetting, bundle: Bundle, role: str = TARGET, defenses: Sequence[Defense] = ()) -> nn.Module:
    """Build a bundle's network again, with its weights."""
    _, classes, builder, use = _part(setting, role)
    with Runtime(device=torch.device("cpu")).seeded("restore"):
        module = _built(builder, use, len(classes), bundle.card.input, defenses)
    module.load_state_dict(dict(bundle.weights))
    return module


def holdout_accuracy(setting: ToySetting, modality: Modality, module: nn.Module, runtime: Runtime) -> float:
    """Return the accuracy on held-out private samples."""
    split = setting.dataset.split("holdout")
    logits = predict(module, split.take, len(split), modality.adapter(setting.dataset.input), runtime)
    return accuracy(logits, split.labels if split.labels is not None else torch.zeros(0))


def _part(setting: ToySetting, role: str) -> tuple[Split, tuple[str, ...], ModelBuilder, PluginUse]:
    if role == EVALUATOR:
        return (*setting.dataset.judging(), setting.judge_build, setting.judge_model)
    return setting.dataset.split("private"), setting.dataset.classes, setting.build, setting.model


def _built(
    builder: ModelBuilder, use: PluginUse, n_classes: int, spec: InputSpec, defenses: Sequence[Defense]
) -> nn.Module:
    module = builder(n_classes, spec, **use.config)
    for defense in defenses:
        module = defense.adapt_model(module)
    return module


def toy_target(
    *, access: Access = Access.WHITE_BOX, n_classes: int = 4, size: int = 8, budget: Budget | None = None,
    runtime: Runtime | None = None,
) -> Target:  # fmt: skip
    """Return a trained target of the toy problem of grids, behind the given access."""
    setting, modality = toy_setting(size=size, n_classes=n_classes), ToyModality()
    return Target(
        restored(setting, train_toy(setting, modality)),
        access=access,
        adapter=modality.adapter(setting.dataset.input),
        input_spec=setting.dataset.input,
        classes=setting.dataset.classes,
        ledger=Ledger(budget=budget or Budget()),
        runtime=runtime or Runtime(device=torch.device("cpu")),
    )
