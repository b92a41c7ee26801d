"""``mi compare``: runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--at-budget",
    metavar="N|equal",
    help="Compare at N queries, each run at its last earlier stand within them, or at what the cheapest run spent.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(app: App, *, runs: tuple[Path, ...], at_budget: str | None, as_json: bool) -> None:
    """Compare runs; differences are to the first one, paired by class."""
    from micore.runs import Run, compare
    from micore.runs.at_budget import read_budget

    budget = None if at_budget is None else read_budget(at_budget)
    comparison = compare([Run.open(run) for run in runs], at_budget=budget)
    if as_json:
        app.json(comparison.to_dict())
    else:
        app.result(comparison.text().rstrip())
