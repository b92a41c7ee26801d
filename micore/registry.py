"""Finds plugins, keeps the broken ones from hurting the others, and loads them on first use.

pluggy's own loader stops at the first plugin that fails, so the loop is ours: each plugin is checked
for its version before it is imported, imported under guard, and its hooks and descriptions are
validated at once. What is wrong with it becomes a `PluginRecord`, and an error only when the user
names it. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import pluggy

from micore import hookspecs
from micore.discovery import (
    Candidate,
    PluginRecord,
    broken,
    canonical,
    check_hooks,
    check_unique,
    check_version,
    checked,
    installed,
    one_line,
    tracker_of,
)
from micore.errors import (
    IncompatiblePluginError,
    MiError,
    NameClashError,
    PluginError,
    UnknownNameError,
    UsageError,
)
from micore.hookspecs import OBSERVER_HOOKS, SPEC_HOOKS
from micore.spec_texts import modality_of
from micore.specs import ANY, KINDS, Spec

__all__ = ["Entry", "PluginRecord", "Registry", "modality_of", "strict_by_environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that a plugin offers, and who offers it."""

    spec: Spec
    provider: PluginRecord


class Registry:
    """All plugins of one process, or of one test. Make one and pass it on; there is no global one.

    ``report`` is told of observers that fail; without it they are logged.
    """

    def __init__(self, *, report: Callable[[str], None] | None = None) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._records: list[PluginRecord] = []
        self._report = report or _log

    @classmethod
    def discover(
        cls,
        *,
        disabled: Iterable[str] = (),
        no_plugins: bool = False,
        strict: bool | None = None,
        report: Callable[[str], None] | None = None,
    ) -> Registry:
        """Find the installed plugins.

        disabled: entry point names or distributions to leave out, besides ``MI_DISABLED_PLUGINS``.
        strict: any broken plugin is an error; None leaves it to ``MI_STRICT_PLUGINS``.

        Raises: PluginError in strict mode, naming every broken plugin.
        """
        registry = cls(report=report)
        left_out = {canonical(name) for name in (*disabled, *_disabled_by_environment())}
        for candidate in [] if no_plugins else installed():
            registry._records.append(registry._admit(candidate, left_out))
        if strict_by_environment() if strict is None else strict:
            registry.require_sound()
        return registry

    @classmethod
    def from_plugins(cls, plugins: Mapping[str, object]) -> Registry:
        """Make a registry of these modules or objects, for tests."""
        registry = cls()
        for name, plugin in plugins.items():
            registry.add(name, plugin)
        return registry

    def add(self, name: str, plugin: object) -> PluginRecord:
        """Add a module or object as if a distribution of this name had offered it."""
        record = PluginRecord(name=name, distribution=name, version="0")
        self._records.append(self._admit(Candidate(record=record, load=lambda: plugin), set()))
        return self._records[-1]

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every plugin that was found."""
        return tuple(self._records)

    @property
    def failed(self) -> tuple[PluginRecord, ...]:
        """The broken and incompatible plugins."""
        return tuple(record for record in self._records if record.failed)

    def require_sound(self) -> None:
        """Check that no plugin is broken.

        Raises: PluginError that names all of them.
        """
        if self.failed:
            reasons = "; ".join(str(record) for record in self.failed)
            raise PluginError(f"unusable plugins: {reasons}", hint="`mi doctor -v` shows their tracebacks")

    def plugin_of(self, entry: Entry) -> object:
        """Return the module or object whose hooks offer an entry."""
        record = entry.provider
        return self._manager.get_plugin(f"{record.distribution}:{record.name}")

    def entries(self, kind: str | None = None, modality: str | None = None) -> list[Entry]:
        """Return what is offered, sorted by kind and name; of one kind or modality when given."""
        if kind is not None and kind not in KINDS:
            raise UsageError(f"unknown kind of plugin {kind!r}", hint="one of " + ", ".join(KINDS))
        found = [
            Entry(spec=spec, provider=record)
            for record in self._records
            for spec in record.specs
            if kind in (None, spec.kind) and (modality is None or modality_of(spec) in (modality, ANY))
        ]
        order = list(KINDS)
        return sorted(found, key=lambda entry: (order.index(entry.spec.kind), entry.spec.name))

    def find(self, kind: str, name: str) -> Entry:
        """Return the one that is called ``name`` or ``distribution:name``.

        Raises: UnknownNameError with close matches and how to install it; NameClashError when two
        plugins offer it; PluginError when the plugin that offers it is broken.
        """
        distribution, _, plain = name.rpartition(":")
        entries = self.entries(kind)
        named = [entry for entry in entries if entry.spec.name == plain]
        found = [entry for entry in named if _offers(entry.provider, distribution)]
        if len(found) > 1:
            raise _clash(kind, plain, found)
        if found:
            return found[0]
        self._blame_failed(kind, plain)
        raise _unknown(kind, name, [entry.spec.name for entry in entries])

    def load(self, entry: Entry | Spec) -> Any:
        """Import what a spec names.

        Raises: PluginError that tells a missing dependency from a bug in the plugin.
        """
        spec = entry.spec if isinstance(entry, Entry) else entry
        provider = next((record for record in self._records if spec in record.specs), None)
        package = provider.distribution if provider else "its plugin"
        module_name, _, attribute = spec.target.partition(":")
        try:
            return getattr(import_module(module_name), attribute)
        except MiError:
            raise
        except Exception as error:  # seam: loading a plugin
            raise _load_error(spec, module_name, package, error) from error

    def observe(self, hook: str, **arguments: Any) -> None:
        """Call the observers of a run; one that fails is reported and stops nothing."""
        if hook not in OBSERVER_HOOKS:
            raise UsageError(f"{hook!r} is not an observer hook", hint="one of " + ", ".join(OBSERVER_HOOKS))
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            accepted = {name: arguments[name] for name in implementation.argnames}
            try:
                implementation.function(**accepted)
            except Exception as error:  # seam: calling an observer
                self._report(f"observer {implementation.plugin_name} failed in {hook}: {one_line(error)}")

    def _admit(self, candidate: Candidate, disabled: set[str]) -> PluginRecord:
        record = candidate.record
        if not disabled.isdisjoint((canonical(record.name), canonical(record.distribution))):
            return replace(record, status="disabled")
        if record.failed:
            return record
        key = f"{record.distribution}:{record.name}"
        try:
            check_version(candidate.requires)
            return replace(record, specs=self._register(candidate.load(), key, record))
        except IncompatiblePluginError as error:
            return replace(record, status="incompatible", reason=error.message)
        except (Exception, SystemExit) as error:  # seam: loading a plugin
            self._forget(key)
            return broken(record, error)

    def _register(self, plugin: object, key: str, record: PluginRecord) -> tuple[Spec, ...]:
        check_hooks(self._manager, plugin)
        self._manager.register(plugin, name=key)
        specs: list[Spec] = []
        for hook, kind in SPEC_HOOKS.items():
            for function in self._implementations(plugin, hook):
                specs += checked(hook, kind, function())
        observed = [hook for hook in OBSERVER_HOOKS if self._implementations(plugin, hook)]
        specs += [tracker_of(record, plugin, observed[0])] if observed else []
        check_unique(specs)
        return tuple(specs)

    def _implementations(self, plugin: object, hook: str) -> list[Callable[..., Any]]:
        """Return a plugin's own functions for a hook."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return [implementation.function for implementation in found if implementation.plugin is plugin]

    def _forget(self, key: str) -> None:
        if self._manager.has_plugin(key):
            self._manager.unregister(name=key)

    def _blame_failed(self, kind: str, name: str) -> None:
        """Raise the reason if the plugin that should offer this name is there and does not work."""
        from micore.known_plugins import KNOWN

        wanted = {f"{kind}-{name}", f"mi-{kind}-{name}", KNOWN.get((kind, name), ""), name}
        for record in self._records:
            if record.status != "ok" and not wanted.isdisjoint((record.name, canonical(record.distribution))):
                raise _unusable(kind, name, record)


def _disabled_by_environment() -> Iterator[str]:
    return (name.strip() for name in os.environ.get("MI_DISABLED_PLUGINS", "").split(",") if name.strip())


def strict_by_environment() -> bool:
    """Tell whether ``MI_STRICT_PLUGINS`` makes every broken plugin an error."""
    return os.environ.get("MI_STRICT_PLUGINS", "").lower() not in ("", "0", "false", "no")


def _offers(provider: PluginRecord, distribution: str) -> bool:
    return not distribution or canonical(provider.distribution) == canonical(distribution)


def _clash(kind: str, name: str, found: list[Entry]) -> NameClashError:
    packages = [entry.provider.distribution for entry in found]
    return NameClashError(
        f"{kind} {name!r} is offered by {' and by '.join(packages)}",
        hint=f"pick one, such as {packages[0]}:{name}",
    )


def _unusable(kind: str, name: str, record: PluginRecord) -> PluginError:
    message = f"{kind} {name!r}: {record}"
    if record.status == "incompatible":
        return IncompatiblePluginError(message, hint=f"pip install --upgrade {record.distribution} micore")
    if record.status == "disabled":
        return PluginError(message, hint="take it out of MI_DISABLED_PLUGINS")
    return PluginError(message, hint="`mi doctor -v` shows the traceback")


def _unknown(kind: str, name: str, known: list[str]) -> UnknownNameError:
    import difflib

    from micore.known_plugins import KNOWN

    offered = sorted({other for other_kind, other in KNOWN if other_kind == kind} | set(known))
    message = f"no {kind} is called {name!r}"
    if (kind, name) in KNOWN:
        return UnknownNameError(f"{message} here", hint=f"pip install {KNOWN[kind, name]}")
    close = difflib.get_close_matches(name, offered, n=3)
    parts = [text if text in known else f"{text} (pip install {KNOWN[kind, text]})" for text in close]
    if parts:
        return UnknownNameError(message, hint=f"did you mean {' or '.join(parts)}?")
    return UnknownNameError(message, hint=f"`mi list-plugins --kind {kind}` shows what there is")


def _load_error(spec: Spec, module_name: str, package: str, error: Exception) -> PluginError:
    what = f"{spec.kind} {spec.name!r}"
    own = module_name.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or own).partition(".")[0] != own:
        return PluginError(
            f"{what} needs the Python package {error.name!r}, which is not installed",
            hint=f"pip install --upgrade {package}",
        )
    return PluginError(
        f"{what} cannot be loaded from {spec.target}: {one_line(error)}",
        hint=f"this is a bug in {package}; -v shows the traceback",
    )


def _log(message: str) -> None:
    import logging

    logging.getLogger("micore").warning(message)
