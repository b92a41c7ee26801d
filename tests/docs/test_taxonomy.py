"""The page that says where each method lives names every attack and defense, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from micore.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "taxonomy.md"


def test_every_attack_and_defense_has_its_place():
    registry = Registry.discover()
    there = {entry.spec.name for kind in ("attack", "defense") for entry in registry.entries(kind)}
    assert set(re.findall(r"`([a-z0-9-]+)`", PAGE.read_text(encoding="utf-8"))) == there
