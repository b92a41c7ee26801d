"""``mi plan``."""

from __future__ import annotations

from typing import Any

import click

from micore.cli.app import App
from micore.cli.options import attack_options, attack_request


@click.command()
@attack_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def command(app: App, /, as_json: bool, **options: Any) -> None:
    """Tell what an attack would need and cost, without running it.

    Everything is checked as `mi attack` would check it. The time is the target's share, from a short
    timed probe; training a prior comes on top.
    """
    from micore.runs.plan import plan

    document = plan(app.registry, attack_request(options)).to_dict()
    if as_json:
        app.json(document)
    else:
        app.details({name.replace("_", " "): _text(value) for name, value in document.items() if name != "schema"})


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return f"{len(value)}: " + ", ".join(map(str, value[:8])) + (", ..." if len(value) > 8 else "")
    return str(value)
