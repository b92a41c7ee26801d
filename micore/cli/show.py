"""``mi show``: one plugin, its paper, what it needs and what it can be set to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from micore.cli.app import App
from micore.errors import UnknownNameError, UsageError
from micore.registry import Entry
from micore.spec_texts import access_of, aim_of, describe, modality_of, status_of
from micore.specs import KINDS

if TYPE_CHECKING:
    from pydantic import BaseModel

CONFIGURABLE = ("attack", "defense", "evaluator")


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="The kind, when several have the name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(app: App, *, name: str, kind: str | None, as_json: bool) -> None:
    """Show what the plugin NAME does, needs and can be set to."""
    entry = find_entry(app, name, kind)
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


def settings(config: type[BaseModel]) -> list[dict[str, str]]:
    """Describe the fields of a config: name, type, default, range, description."""
    schema = config.model_json_schema()
    return [
        {
            "field": name,
            "type": _type(_resolved(field, schema)),
            "default": _default(config, name),
            "range": _range(_resolved(field, schema)),
            "description": " ".join(field.get("description", "").split()),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _default(config: type[BaseModel], name: str) -> str:
    field = config.model_fields[name]
    if field.is_required():
        return "required"
    from pydantic_core import to_jsonable_python

    default = to_jsonable_python(field.get_default(call_default_factory=True))
    return "none" if default is None else str(default)


def _resolved(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference to a definition, such as an enumeration."""
    if "$ref" not in field:
        return field
    definition: dict[str, Any] = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return {**definition, **field}


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return "choice"
    if field.get("type") == "array" and "items" in field:
        return f"list of {_type(field['items'])}"
    return str(field.get("type", field.get("title", "object"))).replace("null", "none")


def _range(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(filter(None, map(_range, field["anyOf"])))
    if "enum" in field or "const" in field:
        return ", ".join(map(str, field.get("enum", [field.get("const")])))
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {field[key]}" for key, sign in signs.items() if key in field)
