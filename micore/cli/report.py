"""``mi report``: what a run found, for a reader."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from micore.cli.app import App

if TYPE_CHECKING:
    from micore.contracts import Dataset, Modality
    from micore.runs import Run


FILE = click.Path(path_type=Path, dir_okay=False)
LEVELS = NONE, BLURRED, RECOVERED, EVIDENCE, PRIVATE = ("none", "blurred", "recovered", "evidence", "private")
"""Which samples a report shows, each level with all before it; blurred: those of the next one, unrecognisably."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--html", type=FILE, help="Write one self-contained HTML file.")
@click.option("--markdown", type=FILE, help="Write a Markdown file.")
@click.option("--csv", type=FILE, help="Write the figures as CSV, a row for each figure and subject.")
@click.option("--junit", type=FILE, help="Write JUnit XML, with a test case for each gate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="GATE",
    help="Exit with code 15 if this holds, such as 'accuracy > floor + 0.1'; may be repeated.",
)
@click.option(
    "--samples",
    type=click.Choice(LEVELS),
    help="Which samples the HTML shows, each level with those before: "
    "none, recovered ones blurred, recovered, what the adversary held (the default), private ones.",
)
@click.option("--show-private", is_flag=True, help="Put private samples beside the recovered ones: --samples private.")
@click.option("--redact", is_flag=True, help="Leave out every sample: --samples none.")
@click.pass_obj
def command(
    app: App, *, run: Path, html: Path | None, markdown: Path | None, csv: Path | None, junit: Path | None,
    as_json: bool, gates: tuple[str, ...], samples: str | None, show_private: bool, redact: bool,
) -> None:  # fmt: skip
    """Write the report of the run directory RUN; without an option, print it as Markdown.

    A gate reads FIGURE [by EVALUATOR] [of SUBJECT] OP EXPRESSION. The expression has numbers, + - * /, brackets,
    other figures, and the figure's own floor and ceiling; figures, floor and ceiling may end in .low or .high.
    """
    from micore.errors import UsageError
    from micore.report import document, render
    from micore.report.gates import check_gates, require_gates
    from micore.runs import Run

    given = [*([samples] if samples else []), *([PRIVATE] if show_private else []), *([NONE] if redact else [])]
    if given and html is None:
        raise UsageError("only the HTML report has samples to show or leave out", hint="give --html FILE")
    if len(set(given)) > 1:
        raise UsageError("--samples, --show-private and --redact contradict each other", hint="give one of them")
    opened = Run.open(run)
    content = document(opened)
    outcomes = check_gates(content, gates)  # before anything is written: a gate that cannot be read is a mistake
    if html is not None:
        _write(app, html, _page(app, opened, given[0] if given else EVIDENCE))
    for path, format in ((markdown, "markdown"), (csv, "csv"), (junit, "junit")):
        if path is not None:
            _write(app, path, render(opened, format, gates=gates))
    if as_json:
        app.json({**content, "gates": [asdict(outcome) for outcome in outcomes]} if gates else content)
    elif gates:
        app.result("\n".join(map(str, outcomes)))
    elif not any((html, markdown, csv, junit)):
        app.result(render(opened, "markdown").rstrip())
    if gates:
        require_gates(outcomes)


def _write(app: App, path: Path, text: str) -> None:
    from micore.files import write_text

    write_text(path, text)
    app.say(f"wrote {path}")


def _page(app: App, run: Run, level: str) -> str:
    from micore.report import render

    shown = LEVELS[: LEVELS.index(level) + 1]
    modality = _modality(app, run) if BLURRED in shown else None
    dataset = _private_data(app, run) if PRIVATE in shown else None
    return render(
        run, "html", modality=modality, dataset=dataset, show_private=PRIVATE in shown, redact=level == NONE,
        evidence=EVIDENCE in shown, blurred=level == BLURRED,
    )  # fmt: skip


def _modality(app: App, run: Run) -> Modality | None:
    """Return what shows the samples, or None, with a warning, where its plugin is not there."""
    from micore.errors import MiError
    from micore.models import load_modality

    try:
        return load_modality(app.registry, run.manifest["attack"]["modality"])
    except MiError as error:
        app.warn(f"the report shows no samples: {error}")
        return None


def _private_data(app: App, run: Run) -> Dataset | None:
    """Return the run's data set, or None, with a warning, where it is not there or has changed."""
    from micore.data import DataRequest
    from micore.errors import DataError, MiError

    data = run.manifest["data"]
    try:
        if "uri" not in data:
            raise DataError("the run does not say which data set it used")
        dataset = DataRequest.from_dict(data).open(app.registry)
        if dataset.fingerprint != data["fingerprint"]:
            raise DataError("the data set has changed since the run")
    except MiError as error:
        app.warn(f"the report shows no private samples: {error}")
        return None
    return dataset
