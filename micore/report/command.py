"""The command line that repeats a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any


def attack_command(request: Mapping[str, Any]) -> str:
    """Return the ``mi attack`` command of a request, ready to paste into a shell."""
    return " ".join(["mi attack", *map(shlex.quote, _options(request))])


def _options(request: Mapping[str, Any]) -> Iterator[str]:
    yield from ("--plugin", request["attack"]["name"], "--model", request["model"])
    for flag, value in _valued(request):
        if value is not None:
            yield from (flag, str(value))
    options = request["data"]["options"] if request["data"] else {}
    for flag, values in (("-p", request["attack"]["config"]), ("-D", options)):
        for setting in settings(values):
            yield from (flag, setting)
    for use in request["evaluators"] or ():
        given = ",".join(settings(use["config"]))
        yield from ("-e", f"{use['name']}:{given}" if given else use["name"])
    if request["compiled"]:
        yield "--compile"


def _valued(request: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("--preset", request["preset"]),
        ("--data", request["data"]["uri"] if request["data"] else None),
        ("--classes", request["choice"]),
        ("--evidence", request.get("evidence")),
        ("--access", request["access"]),
        ("--budget-queries", request["budget"]["queries"]),
        ("--budget-seconds", request["budget"]["seconds"]),
        ("--seed", request["seed"]),
        ("--device", request["device"]),
        ("--precision", request["precision"]),
        ("--batch", request["batch"]),
        ("--tile", request["tile"]),
        ("--evaluator-model", request["evaluator_model"]),
        ("--judges", request.get("judges")),
    ]


def settings(values: Mapping[str, Any]) -> list[str]:
    """Write settings as ``key=value`` texts that the command line reads back."""
    return [f"{name}={_written(value)}" for name, value in values.items()]


def _written(value: Any) -> str:
    """Write a value so that the command line reads it back: JSON, except text that is no JSON."""
    if isinstance(value, str) and not _is_json(value):
        return value
    return json.dumps(value)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
