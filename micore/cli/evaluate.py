"""``mi evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from micore.cli.app import App
from micore.cli.options import evaluator_options, uses
from micore.cli.outcome import finish


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@evaluator_options
@click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def command(
    app: App, run: Path, evaluators: tuple[str, ...], evaluator_model: str | None, judges: int | None, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Judge a finished run again, or with further evaluators; figures of the others are kept."""
    from micore.runs.judging import judge

    finished = judge(
        app.registry, run, evaluators=uses(evaluators) or None, evaluator_model=evaluator_model, judges=judges,
        device=device, progress=app.progress(),
    )  # fmt: skip
    finish(app, finished, as_json=as_json)
