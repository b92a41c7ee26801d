"""Trained toy targets and judges, made once and shared by the checks of many plugins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from micore.artifacts import Bundle, Card, PluginUse
from micore.contracts import Case, Defense, EvaluatorModel, Modality, ModelBuilder, Split
from micore.defending import labelled_public
from micore.inputs import InputSpec
from micore.kit.training import Trainer, accuracy, predict
from micore.registry import Registry
from micore.runtime import Runtime
from micore.specs import ANY
from micore.target import Target
from micore.testing.report import skip
from micore.testing.setting import ToySetting
from micore.testing.toys import ToyModality, toy_setting
from micore.threat import Access, Budget, Ledger


class Lab:
    """The toy problems of a registry's modalities, with what was trained on them."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._settings: dict[str, list[ToySetting]] = {}
        self._bundles: dict[tuple[str, tuple[str, ...], str, str], Bundle] = {}

    def modality(self, name: str) -> Modality:
        """Return a modality's implementation; skip the check when it is not installed."""
        for entry in self.registry.entries("modality"):
            if entry.spec.name == name:
                modality: Modality = self.registry.load(entry)()
                return modality
        skip(f"modality {name!r} is not installed")

    def setting(self, modality: str, goals: Sequence[str] = ()) -> ToySetting:
        """Return a modality's toy problem for one of these goals; the first there is for ``any``.

        Skips the check when there is none.
        """
        installed = [entry.spec.name for entry in self.registry.entries("modality")]
        for name in installed if modality == ANY else [modality]:
            for setting in self._offered(name):
                if not goals or set(goals) & set(setting.goals):
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

    def bundle(self, setting: ToySetting, role: str = "classifier") -> Bundle:
        """Return the trained target (or with role ``evaluator`` the judge) of a setting."""
        key = (setting.modality, setting.goals, setting.model.name, role)
        if key not in self._bundles:
            self._bundles[key] = train_toy(setting, self.modality(setting.modality), role)
        return self._bundles[key]

    def module(self, setting: ToySetting, role: str = "classifier") -> nn.Module:
        """Return a fresh network with the trained weights, as a run would hold it."""
        bundle = self.bundle(setting, role)
        return restored(setting, bundle, role)

    def judge(self, setting: ToySetting, runtime: Runtime) -> EvaluatorModel:
        """Return the independent classifier of a setting, on the runtime's device."""
        module = runtime.place(self.module(setting, "evaluator").requires_grad_(False).eval())
        bundle = self.bundle(setting, "evaluator")
        return EvaluatorModel(
            bundle=bundle, module=module, adapter=self.modality(setting.modality).adapter(bundle.card.input)
        )

    def cases(self, setting: ToySetting, goal: str, evidence: str | None = None) -> list[Case]:
        """Return all cases of a setting."""
        return self.modality(setting.modality).cases(goal, setting.dataset, setting.dataset.classes, None, evidence)


def train_toy(
    setting: ToySetting, modality: Modality, role: str = "classifier", defenses: Sequence[Defense] = ()
) -> Bundle:
    """Train a setting's target, or its judge on the judging data; the same bundle every time."""
    trainer, bundle = train_setting(setting, modality, Runtime(device=torch.device("cpu")), role, defenses)
    return replace(bundle, weights={k: v.detach().clone() for k, v in trainer.module.state_dict().items()})


def train_setting(
    setting: ToySetting, modality: Modality, runtime: Runtime, role: str, defenses: Sequence[Defense],
    **changes: Any,
) -> tuple[Trainer, Bundle]:  # fmt: skip
    """Train on any device, with changes to the training's config; the bundle holds no weights yet."""
    split, classes, builder, use = _part(setting, role)
    spec, config = setting.dataset.input, setting.training.model_copy(update=changes)
    with runtime.seeded(role, "parameters"):
        module = _built(builder, use, len(classes), spec, defenses)
    trainer = Trainer(
        module, split, config=config, adapter=modality.adapter(spec), augment=modality.augment,
        runtime=runtime, defenses=defenses, purpose=role, n_classes=len(classes),
        public=labelled_public(setting.dataset) if defenses else None,
    )  # fmt: skip
    trainer.fit()
    card = Card(
        role=role, modality=setting.modality, model=use, input=spec, classes=tuple(classes),
        data={"name": setting.dataset.name, "fingerprint": setting.dataset.fingerprint},
        training=config.model_dump(), seed=int(role == "evaluator"),
    )  # fmt: skip
    return trainer, Bundle(card=card, weights={}, source="toy")


def restored(
    setting: ToySetting, bundle: Bundle, role: str = "classifier", defenses: Sequence[Defense] = ()
) -> nn.Module:
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
    if role == "evaluator":
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
