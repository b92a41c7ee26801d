"""Following a page of the documentation as a reader would: its console blocks, command by command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from tests.docs.pages import commands

SMOKE = ("--device", "cpu", "--preset", "smoke")
QUICK = {"attack": SMOKE, "plan": (*SMOKE, "--probe", "1"), "train": ("--device", "cpu", "-p", "epochs=1")}
"""What makes commands short, unless they say it themselves."""


def follow(page: Path, mi: Callable[..., Result], but: tuple[str, ...] = ()) -> str:
    """Run a page's commands as they stand there, only shorter, and return all that they print.

    but: beginnings of commands that are left out.
    """
    printed = ""
    for arguments in commands(page):
        line = " ".join(arguments)
        if not line.startswith(but):
            result = mi(*shortened(arguments))
            assert result.exit_code == 0, f"mi {line}\n{result.output}"
            printed += result.stdout
    return printed


def shortened(arguments: list[str]) -> list[str]:
    """Return a command with `QUICK` settings."""
    given = " ".join(arguments)
    more = QUICK.get(arguments[0], ())
    pairs = zip(more[::2], more[1::2], strict=True)
    fresh = [(flag, value) for flag, value in pairs if (value if flag == "-p" else flag).partition("=")[0] not in given]
    return [*arguments, *(word for pair in fresh for word in pair)]
