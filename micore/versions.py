"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("micore", "torch", "numpy", "safetensors", "pluggy", "pydantic")


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of Python, the core's packages and these distributions."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *distributions):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
