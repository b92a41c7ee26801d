"""``mi list-plugins``: the catalogue of what is installed."""

from __future__ import annotations

from typing import Any

import click

from micore.cli.app import App
from micore.errors import UsageError
from micore.plugin_pages import catalogue_tables, page
from micore.registry import Entry, PluginRecord, strict_by_environment
from micore.spec_texts import access_of, aim_of, describe, modality_of
from micore.specs import KINDS

COLUMNS = ("kind", "name", "modality", "aim", "access", "package", "summary")


@click.command()
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only plugins of this kind.")
@click.option("--modality", metavar="NAME", help="Only what works on this modality.")
@click.option("--broken", is_flag=True, help="Only the plugins that cannot be used, with the reason.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", is_flag=True, help="Print the tables of a catalogue, as in the documentation.")
@click.pass_obj
def command(
    app: App, *, kind: str | None, modality: str | None, broken: bool, as_json: bool, markdown: bool
) -> None:  # fmt: skip
    """List attacks, defenses, evaluators, models and data.

    The column "aim" is the goal of an attack or evaluator, the role of a model, the stage of a defense.
    """
    if markdown and (as_json or broken):
        raise UsageError("--markdown goes with neither --json nor --broken")
    entries = [] if broken else app.plugins.entries(kind, modality)
    unusable = [record for record in app.plugins.records if record.status != "ok"]
    if as_json:
        app.json(_document(entries, unusable))
    elif markdown:
        app.result(page(["# Catalogue", *catalogue_tables(entries)]).rstrip())
    elif broken:
        app.table(("plugin", "package", "status", "reason"), [_broken_row(record) for record in unusable])
    else:
        app.table(COLUMNS, [_row(entry) for entry in entries])
        app.warn_of(app.plugins.failed)
    if strict_by_environment():
        app.plugins.require_sound()


def _document(entries: list[Entry], unusable: list[PluginRecord]) -> dict[str, Any]:
    return {
        "schema": "micore.plugins/1",
        "plugins": [describe(entry) for entry in entries],
        "broken": [describe_failure(record) for record in unusable],
    }


def describe_failure(record: PluginRecord) -> dict[str, str | None]:
    """Return the JSON form of a plugin that cannot be used."""
    return {
        "name": record.name, "distribution": record.distribution, "version": record.version,
        "status": record.status, "reason": record.reason,
    }  # fmt: skip


def _row(entry: Entry) -> tuple[str, ...]:
    spec, provider = entry.spec, entry.provider
    package = f"{provider.distribution} {provider.version}"
    return (spec.kind, spec.name, modality_of(spec), aim_of(spec), access_of(spec), package, spec.summary)


def _broken_row(record: PluginRecord) -> tuple[str, ...]:
    return (record.name, f"{record.distribution} {record.version}", record.status, record.reason or "")
