"""``mi doctor``: is everything there that a run will need?"""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from micore.cli.app import App
from micore.cli.list_plugins import describe_failure
from micore.home import cache, home
from micore.registry import strict_by_environment

PACKAGES = ("accelerate", "click", "numpy", "pluggy", "pydantic", "rich", "safetensors")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(app: App, *, as_json: bool) -> None:
    """Check the installation, devices and plugins.

    With MI_STRICT_PLUGINS=1 a broken plugin makes the exit code 4.
    """
    findings = examine(app)
    if as_json:
        app.json(findings)
    else:
        app.details(_lines(findings))
        app.warn_of(app.plugins.failed)
    if strict_by_environment():
        app.plugins.require_sound()


def examine(app: App) -> dict[str, Any]:
    """Look at everything, as JSON values; a package that is missing has the version None."""
    records = app.plugins.records
    return {
        "schema": "micore.doctor/1",
        "micore": _version("micore"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": {"version": _version("torch"), **_devices()},
        "packages": {name: _version(name) for name in PACKAGES},
        "home": str(home()),
        "cache": {"path": str(cache()), **_space(cache())},
        "plugins": {"ok": sum(record.status == "ok" for record in records), "found": len(records)},
        "broken": [describe_failure(record) for record in records if record.status != "ok"],
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """Ask torch, which is imported only here: a torch that cannot be imported is a finding."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"devices": [], "problem": f"torch cannot be imported: {error}"}
    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return {"devices": ["cpu", *cuda, *mps], "problem": None}


def _space(path: Path) -> dict[str, Any]:
    """Tell whether a directory, which need not exist yet, can be written, and the free space there."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    return {"writable": writable, "free_bytes": shutil.disk_usage(existing).free}


def _lines(findings: dict[str, Any]) -> dict[str, str | None]:
    torch, store, plugins = findings["torch"], findings["cache"], findings["plugins"]
    packages = (f"{name} {version or 'MISSING'}" for name, version in findings["packages"].items())
    free = f"{store['free_bytes'] / 2**30:.1f} GiB free" if store["writable"] else "CANNOT BE WRITTEN"
    return {
        "micore": findings["micore"],
        "python": f"{findings['python']} on {findings['platform']}",
        "torch": torch["version"] or "not installed",
        "devices": torch["problem"] or ", ".join(torch["devices"]),
        "packages": ", ".join(packages),
        "home": findings["home"],
        "cache": f"{store['path']} ({free})",
        "plugins": f"{plugins['ok']} ok of {plugins['found']} found",
    }
