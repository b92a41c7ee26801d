"""Entry point of the package; imports neither torch nor a web framework."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import CommandSpec


@hookimpl
def mi_commands() -> Iterable[CommandSpec]:
    """Describe the command."""
    return [CommandSpec(name="serve", target="mi_model_serve.command:command", summary="Serve a target by KServe v2.")]
