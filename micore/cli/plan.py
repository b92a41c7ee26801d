"""``mi plan``."""

from __future__ import annotations

from typing import Any

import click

from micore.cli.app import App
from micore.cli.options import attack_options, attack_request


@click.command()
@attack_options
@click.option(
    "--probe",
    "probe_s",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Try each phase for so many seconds; 0: none. [default: 5, or 0 for a target elsewhere]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def command(app: App, /, as_json: bool, probe_s: float | None, **options: Any) -> None:
    """Tell what an attack would need and cost, without running it.

    Everything is checked as `mi attack` would check it, and queries are counted. Time and memory come from trying
    each phase for a few seconds; the search can be tried only when its preparation is there, or takes no longer.
    """
    from micore.runs.plan import plan

    document = plan(app.registry, attack_request(options), probe_s).to_dict()
    if as_json:
        app.json(document)
    else:
        app.details({name.replace("_", " "): _text(value) for name, value in document.items() if name != "schema"})


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(_phase(item) for item in value)
    if isinstance(value, list):
        return f"{len(value)}: " + ", ".join(map(str, value[:8])) + (", ..." if len(value) > 8 else "")
    return str(value)


def _phase(item: dict[str, Any]) -> str:
    seconds = "too little was seen" if item["seconds"] is None else f"about {item['seconds']:g} s"
    return f"{item['name']}: {item['steps']} steps, {seconds}"
