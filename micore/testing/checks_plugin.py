"""Checks of every kind of plugin: what it says about itself, and its config."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib import metadata
from typing import Any

from pydantic import ValidationError

from micore.contracts import Config
from micore.discovery import GROUP
from micore.testing.bench import Bench
from micore.testing.report import Check, require, skip

NO_PAPER = "no paper"
PROBE = "import sys; sys.path[:] = {path!r}; import {module}; sys.exit('torch' in sys.modules)"


def metadata_complete(bench: Bench) -> None:
    """Catalogue and reports are made from the metadata, so none may be missing."""
    spec = bench.spec
    require(len(spec.summary) >= 10, f"summary {spec.summary!r} says too little")
    require(spec.status in ("experimental", "verified"), f"status {spec.status!r} is unknown")
    require(bool((bench.kind.__doc__ or "").strip()), f"{spec.target} has no docstring")
    if spec.kind in ("attack", "defense") and not getattr(spec, "control", False) and not spec.paper:
        module = sys.modules.get(bench.kind.__module__)
        texts = " ".join(f"{bench.kind.__doc__} {getattr(module, '__doc__', '')}".lower().split())
        require(
            NO_PAPER in texts,
            f"names no paper; if there is none, the docstring must say {NO_PAPER!r} and why",
        )


def spec_pickles(bench: Bench) -> None:
    """A suite sends specs to other processes."""
    copied = pickle.loads(pickle.dumps(bench.spec))
    require(copied == bench.spec, "the spec differs after a round trip through pickle")


def plugin_imports_without_torch(bench: Bench) -> None:
    """Every command imports every plugin module; torch would cost it seconds."""
    module = plugin_module(bench)
    code = PROBE.format(path=sys.path, module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stderr.strip().splitlines()
    require(done.returncode == 0, f"importing {module} " + (f"fails: {lines[-1]}" if lines else "imports torch"))


def plugin_module(bench: Bench) -> str:
    """Return the module that the entry point names; skips the check for what is not installed."""
    provider = bench.entry.provider
    try:
        points = metadata.distribution(provider.distribution).entry_points
    except metadata.PackageNotFoundError:
        skip("the plugin is not installed as a package")
    values = [point.value for point in points if point.group == GROUP and point.name == provider.name]
    if not values:
        skip(f"{provider.distribution} has no entry point {provider.name!r}")
    return values[0].partition(":")[0]


PLUGIN_CHECKS: tuple[Check, ...] = (metadata_complete, spec_pickles, plugin_imports_without_torch)


# configs --------------------------------------------------------------------------------------------------


def config_has_defaults(bench: Bench) -> None:
    """A plugin must work when the user names it and sets nothing."""
    require(issubclass(bench.kind.Config, Config), "Config is not derived from micore.contracts.Config")
    required = [name for name, field in bench.kind.Config.model_fields.items() if field.is_required()]
    require(not required, f"config fields without a default: {', '.join(required)}")


def config_rejects_unknown_keys(bench: Bench) -> None:
    """A misspelt option that is silently ignored makes a wrong experiment."""
    try:
        bench.kind.Config(**{**bench.options, "no_such_option_": 1})
    except ValidationError:
        return
    require(False, "Config accepts an unknown option")


def config_round_trips_through_json(bench: Bench) -> None:
    """A manifest keeps the config as JSON, and a resumed run reads it from there."""
    text = json.dumps(bench.config.model_dump(mode="json"), allow_nan=False)
    again = bench.kind.Config(**json.loads(text))
    require(again == bench.config, f"the config differs after a round trip through JSON: {again!r}")


def config_fields_are_described(bench: Bench) -> None:
    """`mi show` prints the descriptions: they are the only manual of an option."""
    fields = bench.kind.Config.model_fields.items()
    bare = [name for name, field in fields if len((field.description or "").strip()) < 3]
    require(not bare, f"config fields without a description: {', '.join(bare)}")


CONFIG_CHECKS: tuple[Check, ...] = (
    config_has_defaults,
    config_rejects_unknown_keys,
    config_round_trips_through_json,
    config_fields_are_described,
)


# presets of attacks ---------------------------------------------------------------------------------------


def presets_build(bench: Bench) -> None:
    """Every attack offers default, smoke and paper, and each is a valid config."""
    presets: dict[str, Any] = dict(bench.kind.PRESETS)
    missing = {"default", "smoke", "paper"} - presets.keys()
    require(not missing, f"no preset {', '.join(sorted(missing))}")
    for name, values in presets.items():
        try:
            bench.kind.Config(**values)
        except ValidationError as error:
            require(False, f"preset {name!r} is no valid config: {error.errors()[0]['msg']}")


def prepare_fields_are_fields(bench: Bench) -> None:
    """The cache of prepared attacks is keyed by these fields; a wrong name would break the key."""
    unknown = set(bench.kind.PREPARE_FIELDS) - bench.kind.Config.model_fields.keys()
    require(not unknown, f"PREPARE_FIELDS names no config field: {', '.join(sorted(unknown))}")


PRESET_CHECKS: tuple[Check, ...] = (presets_build, prepare_fields_are_fields)
