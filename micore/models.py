"""From an architecture's name, or a bundle, to a network and a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from micore.artifacts import Bundle, PluginUse
from micore.configs import make_config
from micore.contracts import Dataset, Defense, HasDeployment, Modality, Samples
from micore.errors import ModelError, UsageError
from micore.external import External, Respond, SourceRequest
from micore.inputs import InputSpec
from micore.registry import Entry, Registry
from micore.runtime import Runtime
from micore.specs import ANY, DefenseSpec
from micore.target import CLASSIFIER, AnswerForm, Target
from micore.threat import Access, Ledger


def load_modality(registry: Registry, name: str) -> Modality:
    """Return the modality's implementation."""
    modality: Modality = registry.load(registry.find("modality", name))()
    return modality


def load_defenses(
    registry: Registry, uses: Sequence[PluginUse], modality: str, role: str = CLASSIFIER
) -> list[Defense]:
    """Build defenses of a target from their names and configs, in order.

    Raises: UnknownNameError, ConfigError; UsageError for a defense of another modality or of targets of other roles,
    one named twice, and two that replace the same part.
    """
    names = [use.name for use in uses]
    if len(set(names)) != len(names):
        raise UsageError(f"a defense is named twice: {', '.join(names)}")
    _check_claims(registry, names)
    defenses = []
    for use in uses:
        entry = registry.find("defense", use.name)
        modality_of = defense_spec(entry).modality
        if modality_of not in (ANY, modality):
            raise UsageError(f"defense {use.name!r} is for modality {modality_of}, not {modality}")
        roles = defense_spec(entry).roles
        if role not in (*roles, "evaluator"):
            raise UsageError(
                f"defense {use.name!r} defends {' and '.join(roles)} targets; this one is a {role}",
                hint=_defenses_of(registry, modality, role),
            )
        kind = registry.load(entry)
        defenses.append(kind(make_config(kind.Config, use.config, f"defense {use.name!r}")))
    return defenses


def defense_spec(entry: Entry) -> DefenseSpec:
    """Return an entry's spec as a defense's."""
    if not isinstance(entry.spec, DefenseSpec):
        raise TypeError(f"{entry.spec.name} is no defense")
    return entry.spec


def _defenses_of(registry: Registry, modality: str, role: str) -> str | None:
    """Name the defenses of targets of a role; None when there are none."""
    specs = map(defense_spec, registry.entries("defense"))
    fitting = sorted(spec.name for spec in specs if role in spec.roles and spec.modality in (ANY, modality))
    return f"of a {role}: {', '.join(fitting)}" if fitting else None


def _check_claims(registry: Registry, names: Sequence[str]) -> None:
    """Check that no part of the target is replaced by two defenses."""
    claimed: dict[str, str] = {}
    for name in names:
        for claim in defense_spec(registry.find("defense", name)).claims:
            if claim in claimed:
                raise UsageError(
                    f"defenses {claimed[claim]!r} and {name!r} exclude each other: both replace the target's {claim}",
                    hint="name one of them",
                )
            claimed[claim] = name


def build_network(
    registry: Registry, model: PluginUse, n_classes: int, input_spec: InputSpec, defenses: Sequence[Defense]
) -> nn.Module:
    """Build an untrained network with the structure that its defenses give it.

    Raises: ModelError when input or arguments do not fit the architecture.
    """
    builder = registry.load(registry.find("model", model.name))
    try:
        module: nn.Module = builder(n_classes, input_spec, **model.config)
    except TypeError as error:
        raise ModelError(f"model {model.name!r} does not take these arguments: {error}") from error
    for defense in defenses:
        module = defense.adapt_model(module)
    return module


def restore_network(registry: Registry, bundle: Bundle) -> tuple[nn.Module, list[Defense]]:
    """Build a bundle's network with its weights, and its defenses.

    Raises: ModelError when the weights do not fit the architecture that the card names.
    """
    card = bundle.card
    defenses = load_defenses(registry, card.defenses, card.modality, card.role)
    module = build_network(registry, card.model, len(card.classes), card.input, defenses)
    try:
        module.load_state_dict(dict(bundle.weights), strict=True)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{bundle.source}: weights do not fit architecture {card.model.name!r}: {first}") from error
    for use, defense in zip(card.defenses, defenses, strict=True):
        defense.load_state(bundle.defense_state.get(use.name, {}))
    return module, defenses


def is_external(uri: str) -> bool:
    """Tell whether a target is named by a URI; a file or directory that is there goes before a scheme."""
    scheme, separator, _ = uri.partition(":")
    return bool(separator) and len(scheme) > 1 and not Path(uri).exists()


def load_target(registry: Registry, request: SourceRequest) -> Bundle | External:
    """Load a target from a bundle's path, or through the source plugin of its scheme.

    Raises: ModelError; UsageError for options with a bundle, which has none; UnknownNameError for an unknown scheme.
    """
    if not is_external(request.uri):
        if request.options:
            raise UsageError(f"{request.uri} is a bundle, which takes no --model-option")
        return Bundle.load(Path(request.uri))
    scheme = request.uri.partition(":")[0]
    for entry in registry.entries("source"):
        if getattr(entry.spec, "scheme", None) == scheme:
            loaded: Bundle | External = registry.load(entry)(request)
            return loaded
    known = sorted({str(getattr(entry.spec, "scheme", "")) for entry in registry.entries("source")})
    raise ModelError(f"no plugin loads targets from {scheme!r}", hint=f"a bundle's path or: {', '.join(known)}")


def open_target(
    registry: Registry, loaded: Bundle | External, *, access: Access, ledger: Ledger, runtime: Runtime,
    modality: Modality, form: AnswerForm | None = None,
) -> Target:  # fmt: skip
    """Put a target behind its threat model.

    Raises: ModelError when it cannot be built.
    """
    return open_guarded(
        registry, loaded, access=access, ledger=ledger, runtime=runtime, modality=modality, form=form
    ).target  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A target behind its threat model, and what is no adversary's.

    target: as the adversary sees it; own: as those it belongs to use it, with the defenses of its answers, uncounted;
    defenses: by name: what they observe.
    """

    target: Target
    own: Target
    defenses: Mapping[str, Defense]


def open_guarded(
    registry: Registry, loaded: Bundle | External, *, access: Access, ledger: Ledger, runtime: Runtime,
    modality: Modality, form: AnswerForm | None = None, dataset: Dataset | None = None,
) -> Guarded:  # fmt: skip
    """Put a target behind its threat model.

    dataset: the private data that it is used within, for modalities of such (`micore.contracts.HasDeployment`).

    Raises: ModelError when it cannot be built.
    """
    model, defenses = _model(registry, loaded)
    card = loaded.card
    adapter = modality.adapter(card.input)
    target, own = (
        Target(
            model, access=granted, adapter=adapter, input_spec=card.input, classes=card.classes,
            ledger=counting, runtime=runtime, output_defenses=defenses, form=form, role=card.role,
            services=loaded.services if isinstance(loaded, External) else None, watched=counting is ledger,
            answering=deployment(modality, adapter, dataset),
        )
        for granted, counting in ((access, ledger), (min(access, Access.SCORES), Ledger()))
    )  # fmt: skip
    return Guarded(
        target=target, own=own, defenses=dict(zip((use.name for use in card.defenses), defenses, strict=False))
    )


def deployment(
    modality: Modality, adapter: Callable[[Samples], Tensor], dataset: Dataset | None
) -> Callable[[Samples], Tensor] | None:
    """Return the conversion that a target's interface makes within private data, for modalities of such."""
    if dataset is None or not isinstance(modality, HasDeployment):
        return None
    return modality.deployed(adapter, dataset)


def _model(registry: Registry, loaded: Bundle | External) -> tuple[nn.Module | Respond, Sequence[Defense]]:
    if isinstance(loaded, Bundle):
        return restore_network(registry, loaded)
    model = loaded.respond if loaded.module is None else loaded.module
    if model is None:
        raise TypeError("an external target has either a module or respond")
    return model, ()
