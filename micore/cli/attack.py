"""``mi attack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from micore.cli.app import App
from micore.cli.options import attack_options, attack_request
from micore.cli.outcome import finish


@click.command()
@attack_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Run directory. [default: runs/...]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def command(app: App, /, output: Path | None, as_json: bool, **options: Any) -> None:
    """Attack a target, judge what was recovered, and write a report.

    Everything goes into one run directory. A run that is killed continues with `mi resume`.
    """
    from micore.runs import attack

    finish(app, attack(app.registry, attack_request(options), output, app.progress()), as_json=as_json)
