"""Results go to stdout, messages to stderr, colors only where they are seen."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from micore.cli.progress import Bars, Lines
from micore.cli.terminal import Terminal
from micore.runtime import Progress


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [(1, ["say", "debug", "warn"]), (0, ["say", "warn"]), (-1, ["warn"]), (-2, [])],
)
def test_verbosity(capsys: pytest.CaptureFixture[str], verbosity: int, expected: list[str]) -> None:
    terminal = Terminal(verbosity=verbosity)
    terminal.say("say")
    terminal.debug("debug")
    terminal.warn("warn")
    terminal.result("result")
    out, err = capsys.readouterr()
    assert out == "result\n"
    assert [line.removeprefix("warning: ") for line in err.splitlines()] == expected


def test_other_ranks_only_tell_errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    terminal = Terminal()
    terminal.result("result")
    terminal.warn("warning")
    terminal.table(("a",), [("b",)])
    terminal.error("broken", "mend it")
    assert capsys.readouterr() == ("", "error: broken\nhint: mend it\n")
    assert type(terminal.progress()) is Progress


def test_json_is_one_document_that_keeps_its_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().json({"name": "Müller"})
    assert capsys.readouterr().out == '{\n  "name": "Müller"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        Terminal().json(float("nan"))


def test_plain_table_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table(("name", "text"), [("a", "x" * 200), ("long-name", "[red]")])
    assert capsys.readouterr().out == f"name       text\na          {'x' * 200}\nlong-name  [red]\n"


def test_drawn_table_takes_texts_literally(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(color="always").table(("name",), [("[red]",)])
    assert "[red]" in capsys.readouterr().out


def test_details_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().details({"name": "a", "nothing": None, "summary": "b"})
    assert capsys.readouterr().out == "name     a\nsummary  b\n"


@pytest.mark.parametrize(
    ("color", "tty", "no_color", "expected"),
    [
        ("auto", True, "", True),
        ("auto", True, "1", False),
        ("auto", False, "", False),
        ("always", False, "1", True),
        ("never", True, "", False),
    ],
)
def test_color(monkeypatch: pytest.MonkeyPatch, color: str, tty: bool, no_color: str, expected: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    stream = Tty() if tty else io.StringIO()
    assert Terminal(color=color).colored(stream) is expected
    assert Terminal(color=color).console(stream).no_color is not expected


def test_progress_fits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Terminal().progress(), Lines)
    assert type(Terminal(progress=False).progress()) is Progress
    assert type(Terminal(verbosity=-1).progress()) is Progress
    monkeypatch.setattr(sys, "stderr", Tty())
    assert isinstance(Terminal().progress(), Bars)


def test_lines_come_now_and_then() -> None:
    said: list[str] = []
    with Lines(said.append, interval_s=0).track("training", 2) as advance:
        advance(1)
        advance(2)
    with Lines(said.append, interval_s=60).track("training", 2) as advance:
        advance(1)
    assert [line.split(" after ")[0] for line in said] == ["training: 1/2", "training: 2/2"]


def test_bars_stand_inside_each_other_and_survive_an_error() -> None:
    bars = Bars(Console(file=Tty(), force_terminal=True))

    def work() -> None:
        with bars.track("outer [x]", 2) as outer, bars.track("inner", 3) as inner:
            inner(3)
            outer(1)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        work()
    with bars.track("again", 1) as advance:
        advance(1)
