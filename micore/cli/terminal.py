"""All output of the command line: results on stdout, messages on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from micore.runtime import Progress


class Terminal:
    """Writes results and messages; in a distributed run, only the first rank's.

    verbosity: 0 normal, above 0 also debug messages, -1 no remarks, -2 no warnings.
    color: auto, always or never.
    """

    def __init__(self, *, verbosity: int = 0, color: str = "auto", progress: bool = True) -> None:
        self.verbosity = verbosity
        self._color = color
        self._progress = progress
        self._mute = os.environ.get("RANK", "0") != "0"

    def result(self, text: str) -> None:
        """Write a result to stdout."""
        self._write(text, err=False)

    def json(self, document: Any) -> None:
        """Write one JSON document to stdout."""
        import json

        self.result(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table to stdout: drawn on a terminal, plain aligned columns elsewhere."""
        if self.colored(sys.stdout):
            self._draw(columns, rows)
        else:
            self.result(_aligned(columns, rows))

    def details(self, pairs: Mapping[str, str | None]) -> None:
        """Write names and values to stdout, a line each; those without a value are left out."""
        present = {name: value for name, value in pairs.items() if value}
        width = max(map(len, present), default=0)
        self.result("\n".join(f"{name:<{width}}  {value}" for name, value in present.items()))

    def say(self, text: str) -> None:
        """Remark something on stderr, unless -q."""
        if self.verbosity >= 0:
            self._write(text)

    def debug(self, text: str) -> None:
        """Tell a detail on stderr, with -v."""
        if self.verbosity > 0:
            self._write(text)

    def warn(self, text: str) -> None:
        """Warn on stderr, unless -qq."""
        if self.verbosity >= -1:
            self._write(f"{self._styled('warning:', 'yellow')} {text}")

    def error(self, message: str, hint: str | None = None) -> None:
        """Tell of an error on stderr, from any rank."""
        click.echo(f"{self._styled('error:', 'red')} {message}", err=True, color=self.colored(sys.stderr))
        if hint:
            click.echo(f"{self._styled('hint:', 'cyan')} {hint}", err=True, color=self.colored(sys.stderr))

    def progress(self) -> Progress:
        """Return what draws progress on stderr: bars on a terminal, a line now and then elsewhere."""
        from micore.cli.progress import Bars, Lines
        from micore.runtime import Progress

        if self._mute or not self._progress or self.verbosity < 0:
            return Progress()
        return Bars(self.console(sys.stderr)) if sys.stderr.isatty() else Lines(self.say)

    def colored(self, stream: TextIO) -> bool:
        """Tell whether to color what goes to a stream."""
        if self._color != "auto":
            return self._color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def console(self, stream: TextIO) -> Console:
        """Return a rich console on a stream, that takes texts literally."""
        from rich.console import Console

        colored = self.colored(stream)
        return Console(file=stream, no_color=not colored, force_terminal=colored or None, markup=False, highlight=False)

    def _write(self, text: str, *, err: bool = True) -> None:
        if not self._mute:
            click.echo(text, err=err, color=self.colored(sys.stderr if err else sys.stdout))

    def _styled(self, text: str, color: str) -> str:
        return click.style(text, fg=color, bold=True)

    def _draw(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        if not self._mute:
            self.console(sys.stdout).print(table)


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)
