"""The command line: ``mi``.

The table below is all that ``mi --help`` reads; a command's module is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from micore import __version__
from micore.cli.app import App
from micore.cli.seam import guarded
from micore.errors import UnknownNameError

COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("micore.cli.quickstart:command", "Attack a small model from start to report, on a CPU."),
    "train": ("micore.cli.train:command", "Train a target model, with or without defenses."),
    "defend": ("micore.cli.defend:command", "Add defenses of its answers to a finished target."),
    "attack": ("micore.cli.attack:command", "Attack a target and judge what was recovered."),
    "evaluate": ("micore.cli.evaluate:command", "Judge a run again, or with other evaluators."),
    "report": ("micore.cli.report:command", "Write a run's report as HTML, Markdown or JSON."),
    "compare": ("micore.cli.compare:command", "Compare runs side by side."),
    "resume": ("micore.cli.resume:command", "Continue a run that was stopped."),
    "bench": ("micore.cli.bench:command", "Run a suite of attacks, and write one table."),
    "plan": ("micore.cli.plan:command", "Tell what a run would need and cost, without running it."),
    "import": ("micore.cli.import_:command", "Turn a model of yours into a target bundle."),
    "list-plugins": ("micore.cli.list_plugins:command", "List attacks, defenses, evaluators, models, data."),
    "show": ("micore.cli.show:command", "Show what a plugin does, needs and can be set to."),
    "check": ("micore.cli.check:command", "Check that a plugin keeps its contract."),
    "new": ("micore.cli.new:command", "Write the package of a new plugin, which works."),
    "doctor": ("micore.cli.doctor:command", "Check the installation, devices and plugins."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are called; plugins add more."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands, then those of plugins."""
        return list(self._short_helps(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, built-in ones first; None when there is no such command."""
        if cmd_name in COMMANDS:
            return _prepared(_import(COMMANDS[cmd_name][0]))
        registry = _app(ctx).registry
        try:
            return _prepared(registry.load(registry.find("command", cmd_name)))
        except UnknownNameError:
            return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._short_helps(ctx).items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; every error ends here."""
        ctx.obj = _make_app(ctx.params)  # before click looks the command up: it may be a plugin's
        with guarded(ctx):
            return super().invoke(ctx)

    def _short_helps(self, ctx: click.Context) -> dict[str, str]:
        helps = {name: text for name, (_, text) in COMMANDS.items()}
        for entry in _app(ctx).plugins.entries("command"):
            spec = entry.spec
            if spec.name in COMMANDS:
                package = entry.provider.distribution
                _app(ctx).warn(f"{package} offers a command {spec.name!r}; the built-in one is used")
            helps.setdefault(spec.name, spec.summary)
        return helps


def _make_app(options: Mapping[str, Any]) -> App:
    return App(
        verbosity=options["verbose"] - options["quiet"],
        color=options["color"],
        progress=not options["no_progress"],
        load_plugins=not options["no_plugins"],
    )


def _app(ctx: click.Context) -> App:
    return ctx.ensure_object(App)


def _import(target: str) -> click.Command:
    from importlib import import_module

    module, _, attribute = target.partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command


def _prepared(command: click.Command) -> click.Command:
    """Show in its help the environment variable of each option."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            parameter.show_envvar = True
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        _prepared(child)
    return command


@click.group(
    cls=Commands,
    invoke_without_command=True,
    add_help_option=False,
    context_settings={
        "auto_envvar_prefix": "MI", "help_option_names": ["-h", "--help"], "show_default": True,
    },
)  # fmt: skip
@click.option("-v", "--verbose", count=True, show_default=False, help="Say more; show tracebacks of errors.")
@click.option("-q", "--quiet", count=True, show_default=False, help="Say less; twice: not even warnings.")
@click.option("--no-plugins", is_flag=True, help="Load no plugins.")
@click.option("--no-progress", is_flag=True, help="Draw no progress bars.")
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto",
    help="Color the output; auto: on a terminal, unless NO_COLOR is set.",
)  # fmt: skip
@click.option("--version", is_flag=True, allow_from_autoenv=False, help="Print the version; -v: plugins too.")
@click.option("-h", "--help", "wants_help", is_flag=True, allow_from_autoenv=False, help="Show this message.")
@click.pass_context
def main(ctx: click.Context, /, *, verbose: int, version: bool, wants_help: bool, **_others: Any) -> None:
    """Audit how much of its training data a trained model gives away.

    Results go to stdout, messages to stderr. `mi COMMAND --help` explains a command.
    """
    app = _app(ctx)
    if version:
        app.result("\n".join([f"micore {__version__}", *(app.plugin_versions() if verbose else ())]))
    elif wants_help or ctx.invoked_subcommand is None:
        app.result(ctx.get_help())
    if version or wants_help:
        ctx.exit()


_prepared(main)
