"""``mi defend``, and what `mi train` does with defenses once the network is trained: fit, store, tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from micore.artifacts import Bundle, PluginUse
from micore.contracts import Dataset, Defense, Fitting, Samples, Split
from micore.data import DataRequest
from micore.errors import DataError, ModelError, UsageError
from micore.kit.training import PartOf, set_aside
from micore.models import defense_spec, load_defenses, load_modality, restore_network
from micore.registry import Registry
from micore.runtime import Runtime
from micore.utility import answering, measure
from micore.versions import versions

AFTERWARDS = ("inference", "monitoring")
"""Stages of defenses that a trained target can still be given."""


def defend(
    registry: Registry,
    runtime: Runtime,
    bundle: Bundle,
    *,
    defenses: Sequence[PluginUse],
    data: DataRequest | None = None,
    data_root: str | Path | None = None,
    output: Path | None = None,
) -> Bundle:
    """Add defenses of answers to a finished target; return the bundle that carries them, behind those it has.

    They are fitted on the private samples that the training kept aside, or else on the training data, of the data set
    that the card names, looked for under ``data_root`` if that is given, or ``data``.

    Raises: UsageError for a defense that acts on the training; ModelError for data of other classes; DataError,
    ConfigError, UnknownNameError, StorageError.
    """
    card = bundle.card
    _require_afterwards(registry, defenses)
    added = load_defenses(registry, [*card.defenses, *defenses], card.modality, card.role)[len(card.defenses) :]
    dataset = _opened(registry, bundle, data, data_root)
    modality = load_modality(registry, card.modality)
    adapter = modality.adapter(card.input)
    module, present = restore_network(registry, bundle)
    module = runtime.place(module.eval().requires_grad_(False))
    share = float(card.training.get("validation", 0.0))
    # the draws of the training, of its seed: what was kept aside then is kept aside now
    trained_by = replace(runtime, seed=card.seed)
    trained, validation = set_aside(dataset.split("private"), share, trained_by.rng(card.role, "validation"))
    fit_defenses(
        added, module, adapter=adapter, reference=validation or trained, fresh=validation is not None,
        dataset=dataset, runtime=runtime, before=present,
    )  # fmt: skip
    uses = [*card.defenses, *configured(defenses, added)]
    guards = [*present, *added]
    metrics = measure(module, adapter, dataset, trained, runtime, guards)
    known = {"defenses": {**card.metrics.get("defenses", {}), **defense_facts(defenses, added).get("defenses", {})}}
    defended = Bundle(
        card=replace(
            card, defenses=tuple(uses), metrics={**card.metrics, **metrics, **known}, versions=versions(),
        ),
        weights=bundle.weights,
        source=str(output or bundle.source),
        defense_state={**bundle.defense_state, **defense_states(defenses, added)},
    )  # fmt: skip
    if output is not None:
        defended.save(output)
    return defended


def _require_afterwards(registry: Registry, defenses: Sequence[PluginUse]) -> None:
    if not defenses:
        raise UsageError("no defense", hint="give --defense")
    for use in defenses:
        stages = defense_spec(registry.find("defense", use.name)).stages
        late = [stage for stage in stages if stage not in AFTERWARDS]
        if late:
            raise UsageError(
                f"defense {use.name!r} acts on {' and '.join(late)}: a finished target cannot be given it",
                hint="`mi train --defense` trains a target with it",
            )


def _opened(registry: Registry, bundle: Bundle, data: DataRequest | None, data_root: str | Path | None) -> Dataset:
    """Open the data that the target was trained on, as the user names them or else as the card does."""
    card = bundle.card
    if data is None and "uri" not in card.data:
        raise UsageError(f"{bundle.source}: its card names no data set", hint="give --data")
    dataset = (data or DataRequest.from_dict(card.data).under(data_root)).open(registry)
    if tuple(dataset.classes) != tuple(card.classes):
        raise ModelError(
            f"the target's {len(card.classes)} classes are not the {len(dataset.classes)} of data set {dataset.name!r}",
            hint="give the data set and options that the target was trained on",
        )
    return dataset


# fitting, for trainings too -----------------------------------------------------------------------------


def fit_defenses(
    defenses: Sequence[Defense],
    module: nn.Module,
    *,
    adapter: Callable[[Samples], Tensor],
    reference: Split,
    fresh: bool,
    dataset: Dataset,
    runtime: Runtime,
    before: Sequence[Defense] = (),
) -> None:
    """Fit each defense in turn to the trained network and the answers as those before it leave them."""
    if not defenses:
        return
    module.eval()
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    public = labelled_public(dataset)
    guards = list(before)
    with runtime.seeded("fit", "defenses"):
        for defense in defenses:
            defense.fit(
                Fitting(
                    module=module, reference=reference, reference_is_fresh=fresh, public=public,
                    n_classes=len(dataset.classes), adapter=adapter, runtime=runtime,
                    answer=answering(module, adapter, tuple(guards)),
                )
            )  # fmt: skip
            guards.append(defense)
    for parameter in trainable:
        parameter.requires_grad_(True)


def labelled_public(dataset: Dataset) -> Split | None:
    """Return the labelled public samples of a data set, whose labels count from 0; None when there are none."""
    try:
        judging, names = dataset.judging()
    except DataError:
        return None
    n_private = len(dataset.classes)
    if judging.labels is None or len(names) == n_private:
        return None
    return PartOf(judging, (judging.labels >= n_private).nonzero().flatten(), first_label=n_private)


# what bundles keep ----------------------------------------------------------------------------------------


def configured(uses: Sequence[PluginUse], defenses: Sequence[Defense]) -> tuple[PluginUse, ...]:
    """Return the uses with every value of the configs."""
    return tuple(
        PluginUse(name=use.name, config=defense.config.model_dump())
        for use, defense in zip(uses, defenses, strict=True)
    )


def defense_states(uses: Sequence[PluginUse], defenses: Sequence[Defense]) -> dict[str, dict[str, Tensor]]:
    """Return what the bundle holds of each defense that holds anything."""
    states = {use.name: dict(defense.state()) for use, defense in zip(uses, defenses, strict=True)}
    return {name: state for name, state in states.items() if state}


def defense_facts(uses: Sequence[PluginUse], defenses: Sequence[Defense]) -> Mapping[str, Any]:
    """Return what the card tells of the defenses, under ``defenses``; nothing when there is nothing to tell."""
    facts = {use.name: dict(defense.facts()) for use, defense in zip(uses, defenses, strict=True)}
    told = {name: found for name, found in facts.items() if found}
    return {"defenses": told} if told else {}
