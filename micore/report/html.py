"""The report as one HTML file: nothing loaded from anywhere, light and dark, printable.

Its one script sorts tables. The page's policy names the script by its hash, so that no other one can run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from micore import __version__
from micore.report import facts, figures, statements
from micore.report.curves import drawing
from micore.report.gallery import Gallery
from micore.report.progress import PROGRESS
from micore.report.words import DIRECTIONS

Document = Mapping[str, Any]

PLOT_WIDTH = 220.0
MARGIN = 8.0


def to_html(report: Document, gallery: Gallery) -> str:
    """Render a report document with the samples of a gallery, whose fragments are the modality's HTML."""
    script = sorting_script()
    return _template().render(
        report=report, gallery=gallery, facts=facts, statements=statements, interval=figures.interval,
        number=figures.number, share=figures.share, plot=plot, curve=curve, course=course, trusted=Markup,
        version=__version__, exact=exact, script=script, script_hash=policy_hash(script), directions=DIRECTIONS,
        progress_text=PROGRESS,
    )  # fmt: skip


def exact(value: float | None) -> str:
    """Write a value for sorting; nothing for what is unknown."""
    return "" if value is None else repr(value)


def policy_hash(script: str) -> str:
    """Return the source by which a Content-Security-Policy allows this inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def sorting_script() -> str:
    """Return the script of a page: it sorts tables."""
    return Path(__file__).with_name("sort.js").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2")


def curve(row: Document) -> Markup | None:
    """Draw one curve of recovery over queries; None where that cannot be done."""
    floor = row["floor"]["value"] if row["floor"] else None
    picture = drawing({row["name"]: row["points"]}, f"{row['name']}, {row['unit']}", floor)
    return None if picture is None else Markup(picture)


def course(row: Document) -> Markup | None:
    """Draw what an attack recorded of itself; None where that cannot be done."""
    picture = drawing({row["name"]: row["points"]}, row["name"], across="look")
    return None if picture is None else Markup(picture)


def plot(row: Document) -> list[dict[str, Any]]:
    """Place the figures of a row on a line of `PLOT_WIDTH`, the attack last so that it lies on top."""
    low, high = _range(row)
    return [
        _mark(name, role, row["cells"][name], low, high)
        for name, role in _roles(row)
        if row["cells"][name]["value"] is not None
    ]


def _roles(row: Document) -> Iterator[tuple[str, str]]:
    for name in row["cells"]:
        if name in row["floors"]:
            yield name, "floor"
        elif name == row["ceiling"]:
            yield name, "ceiling"
    if "attack" in row["cells"]:
        yield "attack", "attack"


def _range(row: Document) -> tuple[float, float]:
    values = [0.0, 1.0] if row["unit"] in ("share", "probability", "rate") else []
    for cell in row["cells"].values():
        bounds = cell["interval"] or {"low": cell["value"], "high": cell["value"]}
        values += [value for value in (cell["value"], bounds["low"], bounds["high"]) if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _mark(name: str, role: str, cell: Document, low: float, high: float) -> dict[str, Any]:
    def place(value: float) -> float:
        return round(MARGIN + (value - low) / (high - low) * (PLOT_WIDTH - 2 * MARGIN), 1)

    bounds = cell["interval"]
    ends = [place(bounds["low"]), place(bounds["high"])] if bounds else None
    text = figures.figure(cell)
    return {"name": name, "role": role, "at": place(cell["value"]), "ends": ends, "text": text}
