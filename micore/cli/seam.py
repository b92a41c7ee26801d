"""The one place where errors end: a line, a hint and an exit code."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from micore.cli.app import App
from micore.errors import Interrupted, MiError

INTERNAL_ERROR = 70


@contextmanager
def guarded(ctx: click.Context) -> Iterator[None]:
    """Turn what a command raises into messages on stderr and an exit code.

    SIGTERM, which schedulers send, interrupts as Ctrl-C does. click keeps what is its own: usage
    errors, exits, and a pipe that the reader closed.
    """
    try:
        with _terminable():
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except MiError as error:
        _end(ctx, error, error.exit_code, error.message, error.hint)
    except KeyboardInterrupt as error:
        hint = "what is done is kept; the same command goes on, or `mi resume` for a run"
        _end(ctx, error, Interrupted.exit_code, "interrupted", hint)
    except Exception as error:  # seam: the top of the command line
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        line = " ".join(f"internal error: {type(error).__name__}: {error}".split())
        _end(ctx, error, INTERNAL_ERROR, line, "-v shows the traceback; please report it")


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, unless the process was told to do something else with it."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(ctx: click.Context, error: BaseException, code: int, message: str, hint: str | None) -> None:
    app = ctx.ensure_object(App)
    if app.verbosity > 0:
        import traceback

        app.debug("".join(traceback.format_exception(error)).rstrip())
    app.error(message, hint)
    ctx.exit(code)
