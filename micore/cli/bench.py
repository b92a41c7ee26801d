"""``mi bench``: a suite of attacks, and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from micore.cli.app import App

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("suite", type=FILE)
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Where targets, runs and tables go.",
)  # fmt: skip
@click.option("--only", multiple=True, metavar="NAME", help="Rows whose name, or a part of it, fits; may have * and ?.")
@click.option("--data-root", metavar="DIR", envvar="MI_DATA_ROOT", help="Where data sets that are not bundled lie.")
@click.option("--write", "page", type=FILE, metavar="PAGE.md", help="Put the tables between the markers of this page.")
@click.option("--renew", is_flag=True, help="Make rows anew whose settings have changed.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")
@click.option(
    "--precision", default="fp32", metavar="fp32|bf16|fp16", help="Arithmetic of entries that do not name theirs."
)
@click.option("--compile", "compiled", is_flag=True, help="Compile networks (pays off in long runs only).")
@click.option("--tile", type=click.IntRange(min=1), help="Rows of one forward pass of a search. [default: by device]")
@click.option(
    "--launcher", default="local", metavar="local|ray", help="Run rows here, in turn, or on the workers of Ray."
)
@click.option("--address", metavar="auto|HOST:PORT", help="Of a Ray cluster. [default: one on this machine]")
@click.option(
    "--launcher-cpus", default=1, type=click.IntRange(min=1), metavar="N", help="Of a worker's machine, for each row."
)
@click.option("--json", "as_json", is_flag=True, help="Print the tables as one JSON document.")
@click.pass_obj
def command(
    app: App, suite: Path, output: Path, only: tuple[str, ...], data_root: str | None, page: Path | None, renew: bool,
    device: str, precision: str, compiled: bool, tile: int | None, launcher: str, address: str | None,
    launcher_cpus: int, as_json: bool,
) -> None:  # fmt: skip
    """Run every row of SUITE, a TOML file: attack x target x defense x seed, and write one table.

    Each row is a process of its own, so that one that fails does not stop the others. The same command goes on with
    what was stopped, and keeps what is finished.
    """
    from micore.suites import Launch, Machine, Options, Precision, run_suite

    options = Options(
        only=only, page=page, renew=renew, machine=Machine(device=device, data_root=_absolute(data_root), tile=tile),
        arithmetic=Precision(name=precision, compiled=compiled),
        launch=Launch(name=launcher, address=address, cpus=launcher_cpus),
    )  # fmt: skip
    document = run_suite(app.registry, suite, output, options, progress=app.progress(), say=app.say)
    if as_json:
        app.json(document)
    else:
        app.table(COLUMNS, [_summary(row, document["columns"][:1]) for row in document["rows"]])
        app.result(f"\ntables: {output / 'bench.html'}")
    _complain(document)


COLUMNS = ("row", "status", "figure", "prepare", "attack")


def _absolute(data_root: str | None) -> str | None:
    return str(Path(data_root).absolute()) if data_root else None


def _summary(row: dict[str, Any], columns: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return a line for the terminal: how a row ended, and its first figure."""
    from micore.suites import texts

    figures = [f"{texts.figure_heading(column)} {texts.mean(texts.find_figure(row, column))}" for column in columns]
    shown = figures if row["figures"] else ["-"]
    times = (texts.duration_text(row[name]) for name in ("prepare_s", "attack_s"))
    return row["name"], row["status"], "".join(shown), *times


def _complain(document: dict[str, Any]) -> None:
    """Raise what kept the suite from being complete, of the rows that were asked for."""
    from micore.errors import CaseFailed

    asked = [row for row in document["rows"] if row["name"] in document["asked"]]
    failed = [row for row in asked if row["status"] == "failed"]
    if failed:
        first = failed[0]
        raise CaseFailed(
            f"{len(failed)} of {len(asked)} rows failed; the first, {first['name']}: {first['error']}",
            hint="the same command tries them again",
        )
