"""What a check works with: one plugin, the toy problem of its modality, and runs that are made once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from micore.configs import make_config, preset_config
from micore.contracts import Modality
from micore.registry import Entry, Registry
from micore.runtime import Runtime
from micore.testing.lab import Lab
from micore.testing.setting import ToySetting

SMOKE = "smoke"
TILE = 8
"""Rows of one forward pass in checks: small enough that the cases of a toy problem need several."""


class Bench:
    """One plugin under check. ``options``: config values over the defaults or the smoke preset."""

    def __init__(self, registry: Registry, entry: Entry, lab: Lab, options: Mapping[str, Any] | None = None) -> None:
        self.registry = registry
        self.entry = entry
        self.lab = lab
        self.options = dict(options or {})

    @property
    def spec(self) -> Any:
        """The plugin's description."""
        return self.entry.spec

    @cached_property
    def kind(self) -> Any:
        """The plugin's implementation."""
        return self.registry.load(self.entry)

    @cached_property
    def config(self) -> Any:
        """The config that is checked: an attack's smoke preset, or the defaults."""
        owner = f"{self.spec.kind} {self.spec.name!r}"
        if hasattr(self.kind, "PRESETS"):
            return preset_config(self.kind, SMOKE, self.options, owner)
        return make_config(self.kind.Config, self.options, owner)

    @cached_property
    def setting(self) -> ToySetting:
        """The toy problem; skips the check when the modality offers none."""
        goals = getattr(self.spec, "goals", None) or ((self.spec.goal,) if hasattr(self.spec, "goal") else ())
        return self.lab.setting(self.spec.modality, goals, getattr(self.spec, "roles", ()))

    @cached_property
    def modality(self) -> Modality:
        """The modality of the toy problem."""
        return self.lab.modality(self.setting.modality)

    def runtime(self, seed: int = 0, device: torch.device | None = None, tile: int = TILE) -> Runtime:
        """Return a runtime for a check."""
        return Runtime(device=device or torch.device("cpu"), seed=seed, tile=tile)
