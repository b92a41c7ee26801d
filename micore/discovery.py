"""Finds installed plugins without importing them, and checks one at a time.

Everything that can be wrong with a plugin is found here: another micore that it needs, an unreadable
entry point, an unknown or misfitting hook, a description of the wrong kind. Nothing imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from types import ModuleType
from typing import Literal

import pluggy

from micore import __version__, hookspecs
from micore.errors import IncompatiblePluginError, MiError, PluginError
from micore.hookspecs import OBSERVER_HOOKS, SPEC_HOOKS
from micore.specs import Spec, TrackerSpec

GROUP = "micore"
Status = Literal["ok", "broken", "incompatible", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """One installed plugin, whether it works or not.

    name: of its entry point; summary: of its package. reason: one line on why it is not ok; trace: the whole traceback.
    """

    name: str
    distribution: str
    version: str
    summary: str = ""
    status: Status = "ok"
    reason: str | None = None
    trace: str | None = None
    specs: tuple[Spec, ...] = ()

    @property
    def failed(self) -> bool:
        """Tell whether it is unusable against the user's will."""
        return self.status in ("broken", "incompatible")

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}".strip()
        state = f"{package} ({self.name}) is {self.status}"
        return f"{state}: {self.reason}" if self.reason else state


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An installed plugin that is not imported yet."""

    record: PluginRecord
    requires: tuple[str, ...] = ()
    load: Callable[[], object]


def installed() -> list[Candidate]:
    """Read the entry points of every distribution, the first of a name on the path winning.

    `metadata.entry_points` would do, if one unreadable file did not take all the others with it.
    """
    found: dict[str, list[Candidate]] = {}
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt") or ""
        if f"[{GROUP}]" in text:
            candidates = list(_candidates(distribution))
            found.setdefault(canonical(candidates[0].record.distribution), candidates)
    return [candidate for name in sorted(found) for candidate in found[name]]


def _candidates(distribution: metadata.Distribution) -> Iterator[Candidate]:
    header = distribution.metadata  # parsed anew at each access, so once
    record = PluginRecord(name="?", distribution=header["Name"] or "?", version=header["Version"] or "?")
    record = replace(record, summary="".join(header.get_all("Summary") or ()))
    requires = tuple(header.get_all("Requires-Dist") or ())
    try:
        points = [point for point in distribution.entry_points if point.group == GROUP]
    except Exception as error:  # seam: loading a plugin
        points = []
        record = broken(record, error)
    if not points:
        reason = record.reason or f"its entry point group [{GROUP}] is empty"
        yield Candidate(record=replace(record, status="broken", reason=reason), load=lambda: None)
    for point in sorted(points, key=lambda point: point.name):
        yield Candidate(record=replace(record, name=point.name), requires=requires, load=point.load)


def check_version(requires: Iterable[str]) -> None:
    """Check that a plugin's requirement admits the running micore, before it is imported.

    Raises: IncompatiblePluginError.
    """
    for text in requires:
        if not re.match(r"micore\b(?![-_.])[^;]*[<>=!~]", text):
            continue
        from packaging.requirements import Requirement

        wanted = Requirement(text)
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if applies and not wanted.specifier.contains(__version__, prereleases=True):
            raise IncompatiblePluginError(f"needs micore{wanted.specifier}, this is {__version__}")


def check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Check that a plugin implements hooks of micore, and only those.

    pluggy itself accepts a hook of any name; how well signatures fit it checks when registering.
    """
    known = {*SPEC_HOOKS, *OBSERVER_HOOKS}
    implemented = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in known:
                raise PluginError(f"{name} is not marked with @hookimpl")
            continue
        hook = options.get("specname") or name
        if hook not in known:
            raise PluginError(f"unknown hook {hook}")
        if options.get("wrapper") or options.get("hookwrapper"):
            raise PluginError(f"{name} wraps its hook; the hooks of micore cannot be wrapped")
        implemented += 1
    if not implemented:
        raise PluginError("implements no hook of micore")


def checked(hook: str, kind: type[Spec], returned: object) -> list[Spec]:
    """Return what a hook gave, once it is known to be descriptions of the right kind."""
    if not isinstance(returned, Iterable):
        raise PluginError(f"{hook} returned {type(returned).__name__}, not an iterable of {kind.__name__}")
    specs = list(returned)
    for spec in specs:
        if not isinstance(spec, kind):
            raise PluginError(f"{hook} returned a {type(spec).__name__}, not a {kind.__name__}")
    return specs


def tracker_of(record: PluginRecord, plugin: object, hook: str) -> TrackerSpec:
    """Describe a plugin that implements an observer's hook: its entry point names it, its package sums it up."""
    name = "-".join(re.findall(r"[a-z0-9]+", record.name.lower())) or "tracker"
    if isinstance(plugin, ModuleType):
        own = next(name for name in dir(plugin) if hook in (name, _specname(getattr(plugin, name))))
        target = f"{plugin.__name__}:{own}"
    else:
        target = f"{type(plugin).__module__}:{type(plugin).__name__}"
    summary = one_line_of(record.summary) or "Observes runs"
    return TrackerSpec(name=name.removeprefix("tracker-"), target=target, summary=summary)


def _specname(attribute: object) -> object:
    """Return the hook that a function of another name implements."""
    options = getattr(attribute, f"{hookspecs.PROJECT}_impl", None)
    return options.get("specname") if isinstance(options, dict) else None


def check_unique(specs: Iterable[Spec]) -> None:
    """Check that a plugin offers no name twice."""
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        if (spec.kind, spec.name) in seen:
            raise PluginError(f"offers {spec.kind} {spec.name!r} twice")
        seen.add((spec.kind, spec.name))


def broken(record: PluginRecord, error: BaseException) -> PluginRecord:
    """Mark a plugin as broken by an error."""
    import traceback

    trace = "".join(traceback.format_exception(error))
    return replace(record, status="broken", reason=one_line(error), trace=trace)


def one_line(error: BaseException) -> str:
    """Tell an error in one line."""
    text = one_line_of(str(error))
    if isinstance(error, MiError | pluggy.PluginValidationError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line_of(text: str) -> str:
    """Put a text on one line."""
    return " ".join(text.split())


def canonical(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
