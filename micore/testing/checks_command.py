"""Checks of commands: that they are found, explained without delay, and refuse wrong use as the built-in ones do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
from click.testing import CliRunner, Result

from micore.cli import COMMANDS
from micore.cli.app import App
from micore.testing.bench import Bench
from micore.testing.checks_plugin import PLUGIN_CHECKS, plugin_module
from micore.testing.report import Check, require

WRONG_USE = 2
HELP = """
import sys
sys.path[:] = {path!r}
from micore.cli import main
main(["{name}", "--help"], prog_name="mi", standalone_mode=False)
sys.exit("torch" in sys.modules)
"""


class CommandBench(Bench):
    """A command under check."""

    def call(self, *arguments: str) -> Result:
        """Call ``mi NAME`` with arguments in this process."""
        group = click.Group(name="mi", commands={self.spec.name: self.kind})
        return CliRunner().invoke(group, [self.spec.name, *arguments], obj=App(), prog_name="mi")


def name_is_free(bench: CommandBench) -> None:
    """A built-in command is never replaced, so one with its name cannot be called."""
    require(bench.spec.name not in COMMANDS, f"`mi {bench.spec.name}` is built in")


def it_is_a_click_command(bench: CommandBench) -> None:
    """The command line is made of click's commands."""
    require(isinstance(bench.kind, click.Command), f"{bench.spec.target} is a {type(bench.kind).__name__}")


def help_explains_everything(bench: CommandBench) -> None:
    """`--help` is the only manual of a command: it says what it does, and what each option is for."""
    done = bench.call("--help")
    require(done.exit_code == 0, f"--help ends with code {done.exit_code}: {done.output.strip()[-200:]}")
    require(len((bench.kind.help or "").strip()) >= 10, "the command does not say what it does")
    bare = [name for name, text in _options(bench.kind) if len((text or "").strip()) < 3]
    require(not bare, f"options without a description: {', '.join(bare)}")


def _options(command: click.Command) -> Iterator[tuple[str, str | None]]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield parameter.opts[-1], parameter.help
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _options(child)


def wrong_use_is_refused(bench: CommandBench) -> None:
    """A misspelt option ends with exit code 2 and a message on stderr; stdout carries results only."""
    done = bench.call("--no-such-option-")
    require(done.exit_code == WRONG_USE, f"an unknown option ends with code {done.exit_code}, not {WRONG_USE}")
    require(not done.stdout, f"an unknown option wrote to stdout: {done.stdout.strip()[:100]!r}")


def help_loads_no_torch(bench: CommandBench) -> None:
    """A command is imported to explain itself; torch would cost that seconds."""
    plugin_module(bench)  # only what is installed can be tried in another process
    code = HELP.format(path=sys.path, name=bench.spec.name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stderr.strip().splitlines()
    require(done.returncode == 0, f"mi {bench.spec.name} --help " + (f"fails: {lines[-1]}" if lines else "loads torch"))


COMMAND_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    name_is_free,
    it_is_a_click_command,
    help_explains_everything,
    wrong_use_is_refused,
    help_loads_no_torch,
)
