"""From a user's ``key=value`` texts to a plugin's checked config."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from micore.contracts import Config
from micore.errors import ConfigError, UsageError

C = TypeVar("C", bound=Config)

EVIDENCE = "evidence"
"""The config field of attacks that prepare for one kind of evidence; the run's ``evidence`` sets it."""


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Turn ``["steps=70", "loss=poincare"]`` into values; JSON where it parses, text otherwise.

    Raises: ConfigError for a text without ``=``.
    """
    values = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"{text!r} is not of the form key=value")
        values[key.strip().replace("-", "_")] = _parse_value(value.strip())
    return values


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_use(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``[package:]name[:key=value,key=value]`` (a defense, evaluator or model with its config)."""
    name, _, rest = text.partition(":")
    second, _, after = rest.partition(":")
    if second and "=" not in second:
        name, rest = f"{name}:{second}", after
    return name, parse_assignments(_split_outside_brackets(rest))


def _split_outside_brackets(text: str) -> list[str]:
    """Split at commas that are not inside a list or object."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part]


def make_config(kind: type[C], values: Mapping[str, Any], owner: str) -> C:
    """Build a config; ``owner`` names the plugin in errors.

    Raises: ConfigError that names the field, what is wrong and, for a typo, the close match.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{owner} has no option {field!r}", hint=_close(field, kind)) from error
        raise ConfigError(f"{owner}: option {field!r}: {first['msg']} (got {first['input']!r})") from error


def _close(name: str, kind: type[Config]) -> str:
    matches = difflib.get_close_matches(name, kind.model_fields, n=3)
    return f"did you mean {', '.join(matches)}?" if matches else "options: " + ", ".join(kind.model_fields)


def preset_config(kind: Any, preset: str, values: Mapping[str, Any], owner: str) -> Config:
    """Build an attack's config: its preset first, the user's values over it.

    Raises: ConfigError for an unknown preset or option.
    """
    presets: Mapping[str, Mapping[str, Any]] = kind.PRESETS
    if preset not in presets:
        matches = difflib.get_close_matches(preset, presets, n=1)
        guess = f"did you mean {matches[0]}? " if matches else ""
        raise ConfigError(f"{owner} has no preset {preset!r}", hint=guess + "presets: " + ", ".join(presets))
    config: Config = make_config(kind.Config, {**presets[preset], **values}, owner)
    return config


def with_evidence(kind: Any, options: Mapping[str, Any], evidence: str | None) -> Mapping[str, Any]:
    """Return an attack's options; one that prepares for a kind of evidence is told which the run gives.

    Raises: UsageError when its options say another.
    """
    if evidence is None or EVIDENCE not in kind.Config.model_fields:
        return options
    if options.get(EVIDENCE, evidence) != evidence:
        raise UsageError(f"--evidence {evidence} contradicts -p {EVIDENCE}={options[EVIDENCE]}", hint="give one")
    return {**options, EVIDENCE: evidence}
