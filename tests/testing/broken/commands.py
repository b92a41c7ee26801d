"""Commands that each break one rule."""

from __future__ import annotations

import click
from toy_plugins import Collection

broken = Collection("command")


@click.command()
def good():
    """Do nothing of interest."""


@click.command()
@click.option("--loud", is_flag=True)
def option_without_help(loud):
    """Do nothing of interest."""


@click.command()
def without_help():
    pass


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def takes_anything(rest):
    """Do nothing of interest."""


class _Chatty(click.Command):
    def parse_args(self, ctx, args):
        click.echo("hello")
        return super().parse_args(ctx, args)


@click.command(cls=_Chatty)
def chatty():
    """Do nothing of interest."""


def function():
    """Do nothing of interest."""


broken("name-is-free", says="built in", name="attack")("broken.commands:good")
broken("it-is-a-click-command", says="is a function")("broken.commands:function")
broken("help-explains-everything", says="--loud")("broken.commands:option_without_help")
broken("help-explains-everything", says="what it does")("broken.commands:without_help")
broken("wrong-use-is-refused", says="code 0")("broken.commands:takes_anything")
broken("wrong-use-is-refused", says="hello")("broken.commands:chatty")
