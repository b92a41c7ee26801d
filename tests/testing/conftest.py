"""Makes the toy plugins importable by name, as specs need it, and shares what is trained."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_plugins import good_registry

from micore.testing.lab import Lab


@pytest.fixture(scope="session")
def lab():
    return Lab(good_registry())
