"""``mi train``: from a data set and an architecture to a bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from micore.artifacts import Bundle, Card, PluginUse
from micore.contracts import Dataset, Samples, Split
from micore.data import DataRequest, describe
from micore.errors import DataError, ModelError
from micore.files import digest
from micore.home import cache
from micore.kit.training import Trainer, TrainingConfig, accuracy, predict
from micore.models import build_network, load_defenses, load_modality
from micore.registry import Registry
from micore.runtime import Checkpoints, Runtime
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
    trainer = Trainer(
        module, split, config=training, adapter=adapter, augment=modality.augment, runtime=runtime,
        defenses=loaded, purpose=role,
    )  # fmt: skip
    trainer.fit()
    metrics = measure(trainer.module, adapter, dataset, split, runtime)
    bundle = Bundle(
        card=Card(
            role=role,
            modality=dataset.modality,
            model=model,
            input=dataset.input,
            classes=tuple(classes),
            data=describe(data, dataset),
            defenses=tuple(
                PluginUse(name=use.name, config=defense.config.model_dump())
                for use, defense in zip(defenses, loaded, strict=True)
            ),
            training={**training.model_dump(), "seconds": round(time.monotonic() - started, 2)},
            metrics=metrics,
            seed=runtime.seed,
            versions=versions(),
        ),
        weights={name: tensor.detach().cpu() for name, tensor in trainer.module.state_dict().items()},
        source=str(output or ""),
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


def measure(
    module: nn.Module, adapter: Callable[[Samples], Tensor], dataset: Dataset, split: Split, runtime: Runtime
) -> dict[str, Any]:
    """Measure accuracy on the training split and on held-out private data."""
    found: dict[str, Any] = {}
    for name, part in (("train", split), ("holdout", _holdout(dataset))):
        if part is None or part.labels is None or len(part) == 0:
            continue
        logits = predict(module, part.take, len(part), adapter, runtime)
        found[f"{name}_accuracy"] = accuracy(logits, part.labels)
        found[f"{name}_samples"] = len(part)
    return found


def _holdout(dataset: Dataset) -> Split | None:
    try:
        return dataset.split("holdout")
    except DataError:
        return None
