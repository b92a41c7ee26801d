"""``mi train``: from a data set and an architecture to a bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micore.answers import input_of, is_trained
from micore.artifacts import Bundle, Card, PluginUse
from micore.configs import make_config
from micore.contracts import Dataset, Split
from micore.data import DataRequest, describe
from micore.defending import configured, defense_facts, defense_states, fit_defenses, labelled_public
from micore.errors import ModelError
from micore.files import digest
from micore.home import cache
from micore.kit.training import Trainer, TrainingConfig, set_aside
from micore.models import build_network, load_defenses, load_modality
from micore.registry import Registry
from micore.runtime import Checkpoints, Runtime
from micore.utility import measure
from micore.versions import versions

TARGET_ROLES = ("classifier", "encoder", "language-model", "masked-language-model", "recogniser", "gnn")
"""Roles of architectures that a target can have."""


def train(
    registry: Registry,
    runtime: Runtime,
    *,
    data: DataRequest,
    model: PluginUse,
    training: TrainingConfig | None = None,
    defenses: Sequence[PluginUse] = (),
    dataset: Dataset | None = None,
    output: Path | None = None,
) -> Bundle:
    """Train a target on the private split and measure it on the held-out one.

    The last epoch is kept; nothing is chosen by looking at held-out data. With ``output`` the bundle is
    written there, and the last checkpoint is forgotten only then.

    Raises: DataError, ModelError, ConfigError, UnknownNameError, StorageError.
    """
    role = target_role(registry, model)
    dataset = dataset or data.open(registry)
    return train_on(
        registry, runtime, data=data, dataset=dataset, split=dataset.split("private"), classes=dataset.classes,
        model=model, training=training or training_config(registry, model), defenses=defenses, role=role, output=output,
    )  # fmt: skip


def training_config(registry: Registry, model: PluginUse, options: Mapping[str, Any] | None = None) -> TrainingConfig:
    """Return how an architecture is trained: these options, then its own defaults, then the usual ones.

    Raises: ConfigError; UnknownNameError.
    """
    own = getattr(registry.find("model", model.name).spec, "training", {})
    return make_config(TrainingConfig, {**own, **(options or {})}, "training")


def target_role(registry: Registry, model: PluginUse) -> str:
    """Return the first role of an architecture in which it can be a target.

    Raises: UnknownNameError; ModelError when there is none.
    """
    roles = getattr(registry.find("model", model.name).spec, "roles", ())
    found = next((role for role in roles if role in TARGET_ROLES), None)
    if found is None:
        raise ModelError(
            f"model {model.name!r} cannot be a target; its role is {', '.join(roles)}",
            hint="`mi list-plugins --kind model` shows the roles",
        )
    return str(found)


def train_on(
    registry: Registry,
    runtime: Runtime,
    *,
    data: DataRequest,
    dataset: Dataset,
    split: Split,
    classes: Sequence[str],
    model: PluginUse,
    training: TrainingConfig,
    defenses: Sequence[PluginUse],
    role: str,
    output: Path | None = None,
) -> Bundle:
    """Train a network of any role on a split whose first classes are the private ones.

    One that comes with its weights stays as it is; its card and its defenses are made all the same.
    """
    started = time.monotonic()
    modality = load_modality(registry, dataset.modality)
    loaded = load_defenses(registry, defenses, dataset.modality, role)
    runtime = runtime.with_checkpoints(_checkpoints(runtime, dataset, model, training, defenses, role))
    with runtime.seeded(role, "parameters"):
        module = build_network(registry, model, len(classes), dataset.input, loaded)
    input_spec = input_of(module, dataset.input)
    adapter = modality.adapter(input_spec)
    trained, validation = set_aside(split, training.validation, runtime.rng(role, "validation"))
    trainer = Trainer(
        module, trained, config=training, adapter=adapter, augment=modality.augment, runtime=runtime,
        defenses=loaded, purpose=role, n_classes=len(classes), validation=validation,
        public=labelled_public(dataset) if loaded else None,
    )  # fmt: skip
    if not is_trained(trainer.module):
        trainer.fit()
    fit_defenses(
        loaded, trainer.module, adapter=adapter, reference=validation or trained, fresh=validation is not None,
        dataset=dataset, runtime=runtime,
    )  # fmt: skip
    metrics = measure(trainer.module, adapter, dataset, trained, runtime, loaded)
    if validation is not None:
        metrics["epoch"] = trainer.kept_epoch
    bundle = Bundle(
        card=Card(
            role=role,
            modality=dataset.modality,
            model=model,
            input=input_spec,
            classes=tuple(classes),
            data=describe(data, dataset),
            defenses=configured(defenses, loaded),
            training={**training.model_dump(), "seconds": round(time.monotonic() - started, 2)},
            metrics={**metrics, **defense_facts(defenses, loaded)},
            seed=runtime.seed,
            versions=versions(),
        ),
        weights={name: tensor.detach().cpu() for name, tensor in trainer.module.state_dict().items()},
        source=str(output or ""),
        defense_state=defense_states(defenses, loaded),
    )
    if output is not None:
        bundle.save(output)
    runtime.checkpoints.clear()
    return bundle


def _checkpoints(
    runtime: Runtime, dataset: Dataset, model: PluginUse, training: TrainingConfig,
    defenses: Sequence[PluginUse], role: str,
) -> Checkpoints:  # fmt: skip
    uses = [[use.name, dict(use.config)] for use in (model, *defenses)]
    settings = [runtime.seed, runtime.precision, runtime.device.type, role]
    key = digest(dataset.fingerprint, uses, training.model_dump(), settings)
    return Checkpoints(cache() / "training" / f"{key}.safetensors", runtime.checkpoints.interval_s)
