"""Pages of documentation that are made of what plugins say of themselves, anybody's like those of this project.

Nothing here imports torch; a page of one plugin is given its implementation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from micore.registry import Entry
from micore.spec_texts import access_of, aim_of, modality_of, status_of
from micore.specs import KINDS, Spec

if TYPE_CHECKING:
    from pydantic import BaseModel

COLUMNS: Mapping[str, Sequence[str]] = {
    "modality": ("data set used by default",),
    "dataset": ("modality", "splits", "bundled", "licence"),
    "model": ("modality", "roles"),
    "source": ("scheme",),
    "attack": ("modality", "goal", "least access", "needs", "paper", "status"),
    "defense": ("modality", "stages", "paper", "status"),
    "evaluator": ("modality", "goals", "needs", "by default", "status"),
    "tracker": (),
    "command": (),
}
"""What the catalogue tells of each kind, beside name, summary and package."""

PLURALS = {"modality": "modalities"}


# the catalogue --------------------------------------------------------------------------------------------


def catalogue_tables(entries: Sequence[Entry], link: Callable[[Entry], str] | None = None) -> Iterator[str]:
    """Yield a heading and a table for each kind of plugin that there is; link: how a name is written."""
    for kind in KINDS:
        own = [entry for entry in entries if entry.spec.kind == kind]
        if own:
            yield f"## {PLURALS.get(kind, f'{kind}s').capitalize()}"
            yield table(("name", "what", *COLUMNS[kind], "package"), [_row(entry, link or _code) for entry in own])


def _row(entry: Entry, link: Callable[[Entry], str]) -> tuple[str, ...]:
    return (link(entry), entry.spec.summary, *facts(entry).values(), f"`{entry.provider.distribution}`")


def _code(entry: Entry) -> str:
    return f"`{entry.spec.name}`"


def facts(entry: Entry) -> dict[str, str]:
    """Return what a spec says besides its summary, in words, by the name of the column."""
    spec: Any = entry.spec
    words: dict[str, Callable[[], str]] = {
        "data set used by default": lambda: spec.default_dataset or "",
        "modality": lambda: modality_of(spec),
        "bundled": lambda: "yes" if spec.bundled else "",
        "by default": lambda: "yes" if spec.default else "",
        "least access": lambda: access_of(spec),
        "scheme": lambda: f"`{spec.scheme}:`",
        "needs": lambda: ", ".join(spec.needs),
        "paper": lambda: spec.paper or "",
        "status": lambda: status_of(spec),
        **dict.fromkeys(("splits", "roles", "goal", "goals", "stages"), lambda: aim_of(spec)),
    }
    return {name: words[name]() if name in words else str(getattr(spec, name)) for name in COLUMNS[spec.kind]}


# one plugin -----------------------------------------------------------------------------------------------


def plugin_page(entry: Entry, implementation: Any) -> str:
    """Return the page of one plugin: what it is, what its module says of it, what it can be set to."""
    spec, provider = entry.spec, entry.provider
    known = {name: value for name, value in facts(entry).items() if value}
    known["package"] = f"{provider.distribution} {provider.version}"
    parts = [f"# {spec.kind.capitalize()} {spec.name}", f"{spec.summary.rstrip('.')}."]
    parts += [table(("", ""), known.items()), described(spec, implementation)]
    config = config_of(implementation)
    if config is not None:
        parts += ["## Options", *presets_table(implementation), options_table(config)]
    return page(parts).rstrip()


def described(spec: Spec, implementation: Any) -> str:
    """Return what the module of an implementation says, or else the implementation itself, as Markdown.

    Of a command it is the help, of a tracker what its first hook says: their modules are not written for users.
    """
    module = sys.modules.get(spec.target.partition(":")[0])
    own = getattr(implementation, "help", None) or getattr(implementation, "__doc__", None)
    text = own if spec.kind in ("command", "tracker") else getattr(module, "__doc__", None) or own
    return cleandoc(text or "").replace("``", "`")


def config_of(implementation: Any) -> type[BaseModel] | None:
    """Return a plugin's options; those of a data set are the one config class beside its opener."""
    if implementation is None or hasattr(implementation, "Config"):
        return getattr(implementation, "Config", None)
    from micore.contracts import Config

    module = sys.modules.get(getattr(implementation, "__module__", ""))
    classes = [item for item in vars(module).values() if isinstance(item, type)] if module else []
    own = [item for item in classes if issubclass(item, Config) and item.__module__ == implementation.__module__]
    return own[0] if own else None


def presets_table(implementation: Any) -> Iterator[str]:
    """Yield the table of what presets change, if there are any."""
    presets = getattr(implementation, "PRESETS", {})
    if presets:
        yield table(("preset", "changes"), [(f"`{name}`", _changes(values)) for name, values in presets.items()])


def _changes(values: Mapping[str, Any]) -> str:
    changes = ", ".join(f"`{name}={value}`" for name, value in values.items())
    return changes or "nothing: the defaults below"


def options_table(config: type[BaseModel]) -> str:
    """Return the table of a config's options."""
    rows = [
        (f"`{row['field']}`", row["type"], f"`{row['default']}`", row["range"], row["description"])
        for row in settings(config)
    ]
    return table(("option", "type", "default", "range", "meaning"), rows) if rows else "No options."


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


# Markdown -------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def page(parts: Iterable[str]) -> str:
    """Return paragraphs as a text, without those that are empty."""
    return "\n\n".join(filter(None, parts)) + "\n"
