"""The tables of a benchmark as one HTML file: nothing loaded from anywhere, and the script of reports alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from micore import __version__, report
from micore.report.html import exact, policy_hash, sorting_script
from micore.suites import texts


def to_html(document: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> str:
    """Render the document of a benchmark, with the tables of `micore.suites.pages.drawn_tables`."""
    script = sorting_script()
    return _template().render(
        bench=document, texts=texts, curves=tables, version=__version__, exact=exact, trusted=Markup, script=script,
        script_hash=policy_hash(script),
    )  # fmt: skip


@cache
def _template() -> Template:
    places = [Path(__file__).parent, Path(report.__file__).parent]  # the style is that of reports
    environment = Environment(
        loader=FileSystemLoader(places), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("bench.html.j2")
