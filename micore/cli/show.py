"""``mi show``: one plugin, its paper, what it needs and what it can be set to."""

from __future__ import annotations

from typing import Any

import click

from micore.cli.app import App
from micore.errors import UnknownNameError, UsageError
from micore.plugin_pages import plugin_page, settings
from micore.registry import Entry
from micore.spec_texts import access_of, aim_of, describe, modality_of, status_of
from micore.specs import KINDS

CONFIGURABLE = ("attack", "defense", "evaluator")


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="The kind, when several have the name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", is_flag=True, help="Print a page of documentation, as for the plugins of this project.")
@click.pass_obj
def command(app: App, *, name: str, kind: str | None, as_json: bool, markdown: bool) -> None:
    """Show what the plugin NAME does, needs and can be set to."""
    if as_json and markdown:
        raise UsageError("--json and --markdown exclude each other")
    entry = find_entry(app, name, kind)
    if markdown:
        app.result(plugin_page(entry, app.registry.load(entry)))
        return
    implementation = app.registry.load(entry) if entry.spec.kind in CONFIGURABLE else None
    if as_json:
        app.json(_document(entry, implementation))
        return
    app.details(_lines(entry))
    if implementation is not None:
        _show_settings(app, implementation)


def find_entry(app: App, name: str, kind: str | None) -> Entry:
    """Find a name among all kinds.

    Raises: UsageError when several kinds have it; UnknownNameError when none has.
    """
    if kind is not None:
        return app.registry.find(kind, name)
    plain = name.rpartition(":")[2]
    kinds = sorted({entry.spec.kind for entry in app.registry.entries() if entry.spec.name == plain})
    if len(kinds) > 1:
        raise UsageError(f"{name!r} names {' and '.join(kinds)}", hint=f"pick one, such as --kind {kinds[0]}")
    if kinds:
        return app.registry.find(kinds[0], name)
    raise _nothing(app, name)


def _nothing(app: App, name: str) -> Exception:
    """Ask every kind in turn why it has no such name, and return the most telling answer."""
    answers = []
    for kind in KINDS:
        try:
            app.registry.find(kind, name)
        except UnknownNameError as error:
            answers.append(error)
    telling = [error for error in answers if error.hint and not error.hint.startswith("`mi list")]
    if telling:
        return telling[0]
    return UnknownNameError(f"no plugin is called {name!r}", hint="`mi list-plugins` shows what there is")


def _lines(entry: Entry) -> dict[str, str | None]:
    spec, provider = entry.spec, entry.provider
    return {
        "name": f"{spec.name} ({spec.kind})",
        "summary": spec.summary,
        "paper": spec.paper,
        "status": status_of(spec),
        "modality": modality_of(spec),
        "aim": aim_of(spec),
        "access": access_of(spec),
        "needs": ", ".join(getattr(spec, "needs", ())),
        "licence": getattr(spec, "licence", None),
        "package": f"{provider.distribution} {provider.version}",
        "target": spec.target,
    }


def _show_settings(app: App, implementation: Any) -> None:
    presets = getattr(implementation, "PRESETS", {})
    for preset, values in presets.items():
        changes = ", ".join(f"{name}={value}" for name, value in values.items())
        app.result(f"preset {preset}: {changes or 'the defaults'}")
    rows = [tuple(row.values()) for row in settings(implementation.Config)]
    if rows:
        app.result("")
        app.table(("field", "type", "default", "range", "description"), rows)


def _document(entry: Entry, implementation: Any) -> dict[str, Any]:
    document = {"schema": "micore.plugin/1", **describe(entry)}
    if implementation is not None:
        presets = getattr(implementation, "PRESETS", {})
        document["presets"] = {name: dict(values) for name, values in presets.items()}
        document["config"] = implementation.Config.model_json_schema()
    return document
