"""What a suite file says, checked before anything runs."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from micore.errors import ConfigError

ENTRIES = ("target", "defense", "attack")
UNDEFENDED = "none"
"""The defense of a suite that names no defenses."""


def _plain(name: str) -> str:
    if not name.strip() or set(name) & set('/\\*?[]"|\n'):
        raise ValueError("a name has letters, digits, spaces and - _ . , ( ) + =")
    return name


def _writable(values: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        json.dumps(values)
    except TypeError as error:
        raise ValueError("a value is a text, a number, true, false, a list or a table") from error
    return values


Name = Annotated[str, AfterValidator(_plain)]
Options = Annotated[Mapping[str, Any], AfterValidator(_writable)]


class Entry(BaseModel):
    """Base of what a suite is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TargetEntry(Entry):
    """A model to train and attack."""

    name: Name
    data: str = Field(description="data set, as for `mi train --data`")
    data_options: Options = Field({}, description="options of the data set")
    model: str = Field(description="architecture, NAME[:KEY=VALUE,...]")
    training: Options = Field({}, description="training options, such as epochs")
    precision: str | None = Field(None, description="of its training; none: that of the command line")


class DefenseEntry(Entry):
    """Defenses that a target is trained with, together."""

    name: Name
    uses: Sequence[str] = Field((), description="defenses, NAME[:KEY=VALUE,...], in order")
    family: Name | None = Field(None, description="entries of one family, in order, are one curve; none: on its own")
    targets: Sequence[str] | None = Field(None, min_length=1, description="names or patterns of the targets; none: all")


class AttackEntry(Entry):
    """An attack on some or all targets; ``label`` is its name in the table."""

    name: Name | None = Field(None, description="name in the table; none: that of the plugin")
    plugin: str = Field(description="the attack")
    preset: str = "default"
    options: Options = Field({}, description="settings of the attack, over the preset")
    classes: str | None = Field(None, description="cases, such as 0-4,7; none: all")
    evidence: str | None = Field(None, description="what the adversary holds of each case")
    access: str | None = Field(None, description="none: the least that the attack needs")
    top_k: int | None = Field(None, ge=1, description="show only so many of the largest scores")
    round: int | None = Field(None, ge=0, description="show scores with so many decimals")
    budget_queries: Sequence[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, description="a row for each: it ends after so many queries; none: one row without a limit"
    )
    precision: str | None = Field(None, description="of its forward passes; none: that of the command line")
    targets: Sequence[str] | None = Field(None, min_length=1, description="names or patterns of the targets; none: all")
    defenses: Sequence[str] | None = Field(
        None, min_length=1, description="names or patterns of the defenses; none: all"
    )
    seeds: Sequence[int] | None = Field(None, min_length=1, description="seeds; none: those of the suite")
    evaluators: Sequence[str] | None = Field(None, min_length=1, description="evaluators; none: all that fit")

    @property
    def label(self) -> str:
        """The name in the table."""
        return self.name or self.plugin


class Suite(Entry):
    """A whole suite.

    figures: names of the measurements in the table, all with a direction when there are none. list_rows: whether the
    part of a page lists every row; ``bench.md`` and ``bench.html`` always do.
    """

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    seeds: Annotated[Sequence[int], Field(min_length=1)] = (0,)
    judges: int = Field(1, ge=1)
    figures: Sequence[str] = ()
    list_rows: bool = True
    targets: Annotated[Sequence[TargetEntry], Field(min_length=1, alias="target")]
    defenses: Annotated[Sequence[DefenseEntry], Field(min_length=1, alias="defense")] = (DefenseEntry(name=UNDEFENDED),)
    attacks: Annotated[Sequence[AttackEntry], Field(min_length=1, alias="attack")]


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises: ConfigError that names the file, the entry and the field.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="give a suite, a TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        raise _told(path, data, error) from error
    _check_names(path, suite)
    return suite


def _told(path: Path, data: Mapping[str, Any], error: ValidationError) -> ConfigError:
    """Turn pydantic's first complaint into one line."""
    first = error.errors()[0]
    place, field = _place(data, first["loc"])
    where = f"{path}{place}"
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{where}: there is no field {field!r}", hint=_close(first["loc"], field))
    if first["type"] == "missing":
        return ConfigError(f"{where}: {field!r} is missing")
    complaint = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{where}: {field!r}: {_lower(complaint)} (got {_short(first['input'])})")


def _place(data: Mapping[str, Any], location: tuple[int | str, ...]) -> tuple[str, str]:
    """Return where in the file, and which field."""
    kind, rest = location[0], location[1:]
    if kind not in ENTRIES or not rest or not isinstance(rest[0], int):
        return "", ".".join(map(str, location))
    entry = data[str(kind)][rest[0]]
    known = entry.get("name") or entry.get("plugin") if isinstance(entry, dict) else None
    named = repr(known) if isinstance(known, str) else f"number {rest[0] + 1}"
    return f", [[{kind}]] {named}", ".".join(map(str, rest[1:])) or str(kind)


def _close(location: tuple[int | str, ...], field: str) -> str:
    kinds: dict[int | str, type[Entry]] = {"target": TargetEntry, "defense": DefenseEntry, "attack": AttackEntry}
    kind = kinds.get(location[0], Suite) if len(location) > 1 else Suite
    fields = [info.alias or name for name, info in kind.model_fields.items()]
    matches = difflib.get_close_matches(field.split(".")[-1], fields, n=1)
    return f"did you mean {matches[0]!r}?" if matches else "fields: " + ", ".join(fields)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_names(path: Path, suite: Suite) -> None:
    """Check that names are given once, and that what an attack names is there."""
    groups = {
        "target": [entry.name for entry in suite.targets],
        "defense": [entry.name for entry in suite.defenses],
        "attack": [entry.label for entry in suite.attacks],
    }
    for kind, names in groups.items():
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ConfigError(f"{path}, [[{kind}]] {twice[0]!r}: the name stands twice", hint="give each a `name`")
    chosen = [("attack", attack.label, "target", attack.targets) for attack in suite.attacks]
    chosen += [("attack", attack.label, "defense", attack.defenses) for attack in suite.attacks]
    chosen += [("defense", defense.name, "target", defense.targets) for defense in suite.defenses]
    for owner, label, kind, patterns in chosen:
        for pattern in patterns or ():
            if not any(fnmatchcase(name, pattern) for name in groups[kind]):
                raise ConfigError(
                    f"{path}, [[{owner}]] {label!r}: there is no {kind} {pattern!r}",
                    hint=f"{kind}s: " + ", ".join(groups[kind]),
                )


def asked(name: str, patterns: Sequence[str] | None) -> bool:
    """Tell whether a list of names or patterns chooses this one; None chooses all."""
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
