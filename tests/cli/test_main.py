"""The top of the command line: options, lazy commands, plugins' commands, errors and exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click
import pytest
from click.testing import Result

from micore import __version__, errors
from micore.cli import COMMANDS, main

Mi = Callable[..., Result]

COMMAND = """
from micore.hookspecs import hookimpl
from micore.specs import CommandSpec
import click

@hookimpl
def mi_commands():
    return [CommandSpec(name="{name}", target="{module}:command", summary="Wave a hand")]

@click.command()
@click.option("--hand", default="left")
@click.pass_obj
def command(app, hand):
    app.result(f"waves the {hand} hand")
"""


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make ``mi doctor`` raise this."""

    @click.command()
    def command() -> None:
        raise error

    module = types.ModuleType("raising_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raising_command", module)
    monkeypatch.setitem(COMMANDS, "doctor", ("raising_command:command", "Raise."))


def test_help_lists_every_command_in_order(mi: Mi) -> None:
    result = mi("--help")
    assert result.exit_code == 0
    positions = [result.stdout.index(f"\n  {name} ") for name in COMMANDS]
    assert positions == sorted(positions)
    assert result.stderr == ""
    assert mi("-h").stdout == mi().stdout == result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_table_matches_the_command(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    if find_spec(module) is None:
        pytest.skip(f"{module} is not written yet")
    command = getattr(__import__(module, fromlist=[attribute]), attribute)
    assert isinstance(command, click.Command)
    assert COMMANDS[name][1].endswith(".")


def test_options_show_their_environment_variables(mi: Mi) -> None:
    assert "MI_NO_PLUGINS" in mi("--help").stdout
    assert "MI_LIST_PLUGINS_KIND" in mi("list-plugins", "--help").stdout


def test_version(mi: Mi, site: Any) -> None:
    site.install_attack("mi-attack-fine", "fine")
    assert mi("--version").stdout == f"micore {__version__}\n"
    assert "mi-attack-fine 1.0\n" in mi("-v", "--version").stdout


def test_unknown_command_and_option_are_usage_errors(mi: Mi) -> None:
    assert mi("bogus").exit_code == 2
    assert mi("--bogus").exit_code == 2
    assert mi("list-plugins", "--bogus").exit_code == 2
    assert mi("--color", "sometimes", "doctor").exit_code == 2


def test_plugin_adds_a_command(mi: Mi, site: Any) -> None:
    site.install("mi-wave", COMMAND.replace("{name}", "wave"))
    assert "wave          Wave a hand" in mi("--help").stdout
    assert mi("wave", "--hand", "right").stdout == "waves the right hand\n"
    assert "MI_WAVE_HAND" in mi("wave", "--help").stdout
    assert mi("--no-plugins", "wave").exit_code == 2
    assert "Wave" not in mi("--no-plugins", "--help").stdout


def test_built_in_command_wins_and_the_clash_is_told(mi: Mi, site: Any) -> None:
    site.install("mi-wave", COMMAND.replace("{name}", "show"))
    result = mi("--help")
    assert "mi-wave offers a command 'show'; the built-in one is used" in result.stderr
    assert "Wave a hand" not in result.stdout


def test_two_plugins_with_one_command(mi: Mi, site: Any) -> None:
    site.install("mi-wave", COMMAND.replace("{name}", "wave"))
    site.install("mi-wave-too", COMMAND.replace("{name}", "wave"))
    result = mi("wave")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "mi-wave and by mi-wave-too" in result.stderr
    assert mi("mi-wave-too:wave").exit_code == 0


MI_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MiError)]


@pytest.mark.parametrize("kind", MI_ERRORS)
def test_errors_of_micore_are_two_lines_and_a_code(
    mi: Mi, monkeypatch: pytest.MonkeyPatch, kind: type[errors.MiError]
) -> None:
    raising(monkeypatch, kind("it is so", hint="do this"))
    result = mi("doctor")
    assert (result.exit_code, result.stdout) == (kind.exit_code, "")
    assert result.stderr == "error: it is so\nhint: do this\n"


def test_error_without_hint(mi: Mi, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, errors.DataError("it is so"))
    assert mi("doctor").stderr == "error: it is so\n"


def test_interrupt_says_that_work_is_kept(mi: Mi, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    result = mi("doctor")
    assert result.exit_code == 130
    hint = "what is done is kept; the same command goes on, or `mi resume` for a run"
    assert result.stderr == f"error: interrupted\nhint: {hint}\n"


def test_bug_is_one_line_and_a_traceback_with_v(mi: Mi, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ValueError("two\nlines"))
    result = mi("doctor")
    assert result.exit_code == 70
    assert result.stderr.splitlines()[0] == "error: internal error: ValueError: two lines"
    assert "-v shows the traceback" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in mi("-v", "doctor").stderr


def test_strict_mode(mi: Mi, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("mi-attack-raises", "1 / 0")
    monkeypatch.setenv("MI_STRICT_PLUGINS", "1")
    assert mi("--help").exit_code == 0
    for arguments in (["list-plugins"], ["doctor"], ["show", "anything"]):
        result = mi(*arguments)
        assert result.exit_code == 4, arguments
        assert "division by zero" in result.stderr
    assert mi("--no-plugins", "list-plugins").exit_code == 0


def test_reader_that_goes_away_is_no_error(site: Any) -> None:
    for index in range(3):
        site.install_attack(f"mi-attack-a{index}", f"a{index}")
    result = site.run(
        "import os, sys, runpy\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "sys.argv = ['mi', 'list-plugins']\n"
        "runpy.run_module('micore', run_name='__main__')"
    )
    assert result.stderr == ""


# --- speed ----------------------------------------------------------------------------------------

WATCHED = ["torch", "numpy", "pydantic", "rich.console", "micore.cli.show"]
PROBE = """
import sys
sys.argv = ["mi", *{arguments}]
from micore.cli import main
try:
    main(prog_name="mi")
finally:
    print("IMPORTED", [name for name in {watched} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list-plugins"]])
def test_sixty_plugins_stay_under_half_a_second(site: Any, arguments: list[str]) -> None:
    for index in range(60):
        site.install_attack(f"mi-attack-a{index}", f"a{index}")
    site.run(PROBE.format(arguments=arguments, watched=WATCHED))  # compile once, as an installer does
    seconds = []
    for _ in range(3):
        started = cpu_seconds()
        result = site.run(PROBE.format(arguments=arguments, watched=WATCHED))
        seconds.append(cpu_seconds() - started)
        assert result.returncode == 0, result.stderr
        assert "IMPORTED []" in result.stderr
    assert ("a59" in result.stdout) == (arguments == ["list-plugins"])
    assert min(seconds) < 0.5 * slowness(), seconds


def slowness() -> float:
    """Return how many times slower plain Python runs here than on the machine that the bound is for, at least 1."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        sum(range(1_000_000))
        total = 0
        for number in range(1_000_000):
            total += number
        spent.append(time.process_time() - started)
    return max(1.0, min(spent) / 0.06)


def cpu_seconds() -> float:
    """Return the CPU time of all children so far: on an idle machine that is the time a person waits."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_module_runs_as_mi() -> None:
    command = [sys.executable, "-m", "micore", "--no-plugins", "list-plugins", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["plugins"] == []


def test_main_is_the_script() -> None:
    assert main.name == "main"
