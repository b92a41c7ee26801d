"""``mi train``: from a data set and an architecture to a bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from micore.artifacts import Bundle, Card, PluginUse
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
    _require_classifier(registry, model)
    dataset = dataset or data.open(registry)
    return train_on(
        registry, runtime, data=data, dataset=dataset, split=dataset.split("private"), classes=dataset.classes,
        model=model, training=training or TrainingConfig(), defenses=defenses, role="classifier", output=output,
    )  # fmt: skip


def _require_classifier(registry: Registry, model: PluginUse) -> None:
    roles = getattr(registry.find("model", model.name).spec, "roles", ())
    if "classifier" not in roles:
        raise ModelError(
            f"model {model.name!r} is no classifier; its role is {', '.join(roles)}",
            hint="`mi list-plugins --kind model` shows the roles",
        )


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
    """Train a classifier of any role on a split whose first classes are the private ones."""
    started = time.monotonic()
    modality = load_modality(registry, dataset.modality)
    loaded = load_defenses(registry, defenses, dataset.modality)
    runtime = runtime.with_checkpoints(_checkpoints(runtime, dataset, model, training, defenses, role))
    with runtime.seeded(role, "parameters"):
        module = build_network(registry, model, len(classes), dataset.input, loaded)
    adapter = modality.adapter(dataset.input)
    trained, validation = set_aside(split, training.validation, runtime.rng(role, "validation"))
    trainer = Trainer(
        module, trained, config=training, adapter=adapter, augment=modality.augment, runtime=runtime,
        defenses=loaded, purpose=role, n_classes=len(classes), validation=validation,
        public=labelled_public(dataset) if loaded else None,
    )  # fmt: skip
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
            input=dataset.input,
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
