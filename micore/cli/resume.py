"""``mi resume``."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App
from micore.cli.options import budget, budget_options
from micore.cli.outcome import finish


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@budget_options
@click.option("--retry-failed", is_flag=True, help="Attack failed cases again.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def command(
    app: App, run: Path, budget_queries: int | None, budget_seconds: float | None, retry_failed: bool, as_json: bool
) -> None:
    """Continue a run that was killed, interrupted, or stopped by its budget.

    The result is the same as of a run that was never stopped.
    """
    from micore.runs import resume

    new_budget = budget(budget_queries, budget_seconds) if budget_queries or budget_seconds else None
    finished = resume(app.registry, run, budget=new_budget, retry_failed=retry_failed, progress=app.progress())
    finish(app, finished, as_json=as_json)
