"""Everything that one run works with, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from micore.artifacts import Bundle, Card
from micore.attacks import build_attack, preparer
from micore.configs import EVIDENCE, with_evidence
from micore.contracts import Attack, Case, Dataset, Defense, Evaluator, HasObservations, Modality, Split
from micore.data import DataRequest, describe, notes_of
from micore.errors import AccessDenied, ModelError, RunError, UsageError
from micore.external import External, SourceRequest
from micore.home import cache
from micore.models import is_external, load_modality, load_target, open_guarded
from micore.records import true_label
from micore.registry import Entry, Registry
from micore.runs.evaluation import check_panel, chosen_evaluators
from micore.runs.judges import given_model
from micore.runs.preparation import preparation_key, public_split
from micore.runs.request import AttackRequest
from micore.runs.store import Run
from micore.runs.subjects import truths
from micore.runtime import Progress, Runtime
from micore.shelf import Shelf
from micore.specs import AttackSpec, EvaluatorSpec
from micore.target import CLASSIFIER, Target
from micore.threat import Access, Ledger
from micore.utility import measure
from micore.versions import versions

ACCELERATOR_TILE = 256
CPU_TILE = 32


NEEDS_LABEL = "label"
"""The need of evaluators that judge by the class of a case: by default they are left out where nobody knows any."""

UNKNOWN_TRAINING = (
    "how the target was trained is not known: whether a judge shares its data or architecture cannot be checked"
)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run's parts, ready to work."""

    registry: Registry
    request: AttackRequest
    entry: Entry
    attack: Attack
    loaded: Bundle | External
    dataset: Dataset
    modality: Modality
    cases: Sequence[Case]
    target: Target
    defenses: Mapping[str, Defense]
    runtime: Runtime
    evaluators: Sequence[tuple[EvaluatorSpec, Evaluator]]

    @property
    def spec(self) -> AttackSpec:
        """The attack's description."""
        return attack_spec(self.entry)

    @property
    def public(self) -> Split | None:
        """The adversary's data."""
        return public_split(self.dataset)

    @property
    def preparation_key(self) -> str:
        """The key under which the prepared attack is cached."""
        entry, attack = preparer(self.registry, self.entry, self.attack)
        identity = {"attack": entry.spec.name, "distribution": entry.provider.distribution,
                    "version": entry.provider.version}  # fmt: skip
        dataset = self.dataset if self.public is not None else None
        return preparation_key(
            attack, identity, self.loaded.fingerprint, dataset, self.target, self.runtime, self.request.form
        )


def attack_spec(entry: Entry) -> AttackSpec:
    """Return an entry's spec as an attack's."""
    if not isinstance(entry.spec, AttackSpec):
        raise TypeError(f"{entry.spec.name} is no attack")
    return entry.spec


def open_session(registry: Registry, request: AttackRequest, progress: Progress | None = None) -> Session:
    """Check a request from cheap to expensive and build what the run needs; nothing is written.

    Raises: UnknownNameError, ConfigError, AccessDenied, RuntimeUnavailable, ModelError, DataError, UsageError.
    """
    entry = registry.find("attack", request.attack.name)
    spec = attack_spec(entry)
    granted = _granted(spec, request.access)
    attack = build_attack(
        registry, entry, request.preset, with_evidence(registry.load(entry), request.attack.config, request.evidence)
    )
    evaluators = chosen_evaluators(registry, spec.modality, spec.goal, request.evaluators)
    check_panel(evaluators, request.judges)
    runtime = _runtime(request, progress)
    loaded, request, dataset = _load(registry, request, runtime)
    card = loaded.card
    if card.modality != spec.modality:
        raise ModelError(f"attack {spec.name!r} is for modality {spec.modality}; the target is {card.modality}")
    if card.role not in (*spec.roles, "evaluator"):
        raise ModelError(
            f"attack {spec.name!r} attacks {' and '.join(spec.roles)} targets; this one is a {card.role}",
            hint="`mi list-plugins --kind attack` shows the goals of attacks",
        )
    _check_classes(card, dataset)
    _check_form(request, granted, loaded)
    modality = load_modality(registry, spec.modality)
    evidence = getattr(attack.config, EVIDENCE, request.evidence)  # type: ignore[attr-defined]
    cases = modality.cases(spec.goal, dataset, card.classes, request.choice, evidence)
    if "public" in spec.needs and public_split(dataset) is None:
        raise UsageError(f"attack {spec.name!r} needs public data; data set {dataset.name!r} has none")
    if request.evaluator_model is not None:
        given_model(request.evaluator_model, dataset, loaded)
    guarded = open_guarded(
        registry, loaded, access=granted, ledger=Ledger(budget=request.budget), runtime=runtime, modality=modality,
        form=request.form, dataset=dataset,
    )  # fmt: skip
    if isinstance(modality, HasObservations):
        cases = modality.observe(cases, dataset, guarded.own)
    if request.evaluators is None and not _labelled(cases, dataset, modality):
        evaluators = [(spec, evaluator) for spec, evaluator in evaluators if NEEDS_LABEL not in spec.needs]
    return Session(
        registry=registry, request=request, entry=entry, attack=attack, loaded=loaded, dataset=dataset,
        modality=modality, cases=cases, target=guarded.target, defenses=guarded.defenses, runtime=runtime,
        evaluators=evaluators,
    )  # fmt: skip


def _load(
    registry: Registry, request: AttackRequest, runtime: Runtime
) -> tuple[Bundle | External, AttackRequest, Dataset]:
    """Load the target and open the data set: that of the request, or the target's own.

    A target elsewhere does not say what it looks like, so that it is told what data it is for.
    """
    dataset = request.data.open(registry) if request.data and is_external(request.model) else None
    source = SourceRequest(uri=request.model, runtime=runtime, options=request.model_options, dataset=dataset)
    loaded = load_target(registry, source)
    request = _with_data(request, loaded.card)
    if request.data is None:
        raise UsageError("no data set: the target names none", hint="give --data")
    return loaded, request, dataset or request.data.open(registry)


def _labelled(cases: Sequence[Case], dataset: Dataset, modality: Modality) -> bool:
    """Tell whether somebody knows the class of any case."""
    truth = truths(cases, dataset, modality)
    return any(true_label(case, truth) is not None for case in cases)


def check_unchanged(session: Session, run: Run) -> None:
    """Check that target and data are those that a run began with.

    Raises: RunError.
    """
    for name, found in (("target", session.loaded.fingerprint), ("data", session.dataset.fingerprint)):
        if run.manifest[name]["fingerprint"] != found:
            raise RunError(f"the {name} has changed since {run.directory} began", hint="start a new run")


def _granted(spec: AttackSpec, access: Access | None) -> Access:
    granted = spec.access if access is None else access
    if granted < spec.access:
        raise AccessDenied(
            f"attack {spec.name!r} needs {spec.access.label} access; the run grants {granted.label}",
            hint=f"`mi list-plugins --kind attack` shows attacks that work with {granted.label} access",
        )
    return granted


def _runtime(request: AttackRequest, progress: Progress | None) -> Runtime:
    runtime = Runtime.create(request.device, request.precision, compiled=request.compiled, seed=request.seed)
    tile = request.tile or (CPU_TILE if runtime.device.type == "cpu" else ACCELERATOR_TILE)
    return replace(runtime, tile=tile, progress=progress or Progress(), shelf=Shelf(cache() / "shelf"))


def _with_data(request: AttackRequest, card: Card) -> AttackRequest:
    """Take the target's own data set, or its options where the user names the same one without any."""
    trained_on = card.data
    if "uri" not in trained_on:
        return request
    own = DataRequest.from_dict(trained_on).under(request.data_root)
    if request.data is None:
        return replace(request, data=own)
    if request.data.uri == own.uri:
        return replace(request, data=DataRequest(uri=own.uri, options={**own.options, **request.data.options}))
    return request


def _check_form(request: AttackRequest, granted: Access, loaded: Bundle | External) -> None:
    """Check that the target can grant the access, and that there are scores to show a part of."""
    highest = loaded.highest_access if isinstance(loaded, External) else Access.WHITE_BOX
    if granted > highest:
        raise AccessDenied(
            f"{request.model} gives {highest.label} access; the run grants {granted.label}",
            hint=f"`mi list-plugins --kind attack` shows attacks that work with {highest.label} access",
        )
    if not request.form.is_whole and granted != Access.SCORES:
        raise UsageError(
            f"--top-k and --round say what is shown of the scores; the run grants {granted.label} access",
            hint="--access scores, or leave them out",
        )


def _check_classes(card: Card, dataset: Dataset) -> None:
    if tuple(card.classes) != tuple(dataset.classes):
        raise ModelError(
            f"the target has {len(card.classes)} classes ({_some(card.classes)}); "
            f"data set {dataset.name!r} has {len(dataset.classes)} ({_some(dataset.classes)})",
            hint="give the data set and options that the target was trained on",
        )


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def manifest(session: Session) -> dict[str, Any]:
    """Return what a manifest says before the work begins."""
    spec, provider = session.spec, session.entry.provider
    data = describe(session.request.data, session.dataset) if session.request.data else {}
    return {
        "request": session.request.to_dict(),
        "attack": {
            "name": spec.name, "summary": spec.summary, "paper": spec.paper, "goal": spec.goal,
            "modality": spec.modality, "control": spec.control, "preset": session.request.preset,
            "config": session.attack.config.model_dump(mode="json"),  # type: ignore[attr-defined]
            "distribution": provider.distribution, "version": provider.version,
        },
        "answers": session.request.form.to_dict(),
        "target": {"uri": session.request.model, "fingerprint": session.loaded.fingerprint,
                   "card": _measured(session).to_dict()},
        "data": {**data, "same_as_target": _same_data(session)},
        "access": {"granted": session.target.access.label, "used": None},
        "evidence": next((getattr(case.evidence, "kind", None) for case in session.cases), None),
        "seed": session.request.seed,
        "hardware": session.runtime.describe(),
        "versions": versions(*_distributions(session)),
        "cases": [{"id": case.id, "label": case.label, "status": "pending"} for case in session.cases],
        "notes": notes(session),
    }  # fmt: skip


def notes(session: Session) -> list[str]:
    """Return what a reader of the run must know of its target and data."""
    loaded, of_data = session.loaded, list(notes_of(session.dataset))
    if isinstance(loaded, External):
        return [UNKNOWN_TRAINING, *loaded.notes, *of_data]
    differs = [] if _same_data(session) else ["the data set differs from the one that the target was trained on"]
    return differs + of_data


def _same_data(session: Session) -> bool | None:
    """Tell whether the data set is that which the target was trained on; None: a foreign target does not say."""
    trained_on = session.loaded.card.data.get("fingerprint")
    if trained_on is None and isinstance(session.loaded, External):
        return None
    return bool(trained_on == session.dataset.fingerprint)


def _measured(session: Session) -> Card:
    """Return the target's card; that of a foreign classifier in memory with how often it is right on held-out data.

    Its owner asks, not the adversary. Classes in another order than the data set's would be seen here only.
    """
    loaded = session.loaded
    if not isinstance(loaded, External) or loaded.module is None or loaded.card.role != CLASSIFIER:
        return loaded.card
    adapter = session.modality.adapter(loaded.card.input)
    metrics = measure(loaded.module, adapter, session.dataset, None, session.runtime)
    return replace(loaded.card, metrics={**loaded.card.metrics, **metrics})


def _distributions(session: Session) -> list[str]:
    providers = [session.entry.provider]
    providers += [session.registry.find("modality", session.spec.modality).provider]
    return [provider.distribution for provider in providers if provider.distribution]
