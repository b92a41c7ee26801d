"""Conformance checks and fixtures, shipped for authors of plugins.

`check_plugin` checks one plugin; ``pytest_plugins = "micore.testing.plugin"`` brings the fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micore.testing.check import check_plugin, parametrize_checks
    from micore.testing.devices import DeviceMixError, pretend_accelerator
    from micore.testing.lab import Lab, toy_target
    from micore.testing.report import CheckReport
    from micore.testing.setting import ToySetting
    from micore.testing.toy_runs import ToyRuns
    from micore.testing.trial import Trial

__all__ = [
    "CheckReport",
    "DeviceMixError",
    "Lab",
    "ToyRuns",
    "ToySetting",
    "Trial",
    "check_plugin",
    "parametrize_checks",
    "pretend_accelerator",
    "toy_target",
]
_HOMES = {
    "CheckReport": "report", "DeviceMixError": "devices", "Lab": "lab", "ToyRuns": "toy_runs", "ToySetting": "setting",
    "check_plugin": "check", "parametrize_checks": "check", "pretend_accelerator": "devices",
    "toy_target": "lab", "Trial": "trial",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: the pytest plugin is loaded before coverage starts, and torch is slow."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
