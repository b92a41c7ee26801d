"""``mi check``: whether a plugin keeps its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from micore.cli.app import App
from micore.cli.show import find_entry
from micore.errors import ConformanceError
from micore.specs import KINDS

if TYPE_CHECKING:
    from micore.testing.report import CheckReport


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="The kind, when several have the name.")
@click.option(
    "-p", "--param", "params", multiple=True, metavar="KEY=VALUE",
    help="An option of the plugin; of a data set or source also a location, of a source also its data.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def command(app: App, *, name: str, kind: str | None, params: tuple[str, ...], as_json: bool) -> None:
    """Check that the plugin NAME keeps its contract, on a toy problem of its modality.

    A tracker is tried as it is set up: set what makes it active. A source is tried on a place that it can open with
    -p location=PLACE -p data=NAME.

    Exits with 13 when a check fails.
    """
    entry = find_entry(app, name, kind)
    app.say(f"checking {entry.spec.kind} {entry.spec.name} of {entry.provider.distribution}")
    report = _checked(app, entry.spec.kind, name, params)
    if as_json:
        app.json(report.to_dict())
    else:
        rows = [(row.status, row.check, f"{row.seconds:.1f} s", row.reason or "") for row in report.rows]
        app.table(("result", "check", "time", "reason"), rows)
    app.say(report.summary())
    skipped = [row for row in report.rows if row.status == "skipped"]
    if len(skipped) > len(report.rows) // 2:
        app.warn(f"most checks were left out: {skipped[0].reason}")
    if not report.passed:
        raise ConformanceError(f"{report.kind} {report.name!r} fails {_counted(report)}")


def _counted(report: CheckReport) -> str:
    failed = [row.check for row in report.failed]
    return f"{len(failed)} check{'s' if len(failed) > 1 else ''}: {', '.join(failed)}"


def _checked(app: App, kind: str, name: str, params: tuple[str, ...]) -> CheckReport:
    """Run the checks; torch is imported here."""
    from micore.configs import parse_assignments
    from micore.testing.check import check_plugin

    return check_plugin(kind, name, registry=app.registry, options=parse_assignments(params))
