"""micore: how much of its training data does a trained model give away?

Importing this package does not import torch; the functions of the Python API do, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from micore.api import attack, bench, compare, defend, evaluate, resume, train
    from micore.artifacts import Bundle
    from micore.errors import MiError
    from micore.hookspecs import hookimpl
    from micore.registry import Registry
    from micore.runs import Run
    from micore.threat import Access, Budget, Ledger

_HOMES = {
    "attack": "api", "bench": "api", "compare": "api", "defend": "api", "evaluate": "api", "resume": "api",
    "train": "api", "Bundle": "artifacts", "MiError": "errors", "hookimpl": "hookspecs", "Registry": "registry",
    "Run": "runs", "Access": "threat", "Budget": "threat", "Ledger": "threat",
}  # fmt: skip

__all__ = [
    "Access", "Budget", "Bundle", "Ledger", "MiError", "Registry", "Run", "__version__",
    "attack", "bench", "compare", "defend", "evaluate", "hookimpl", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
