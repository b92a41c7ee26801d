"""Progress that a person sees; imported only by commands that run something."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from micore.runtime import Progress

LINE_INTERVAL_S = 10.0


class Bars(Progress):
    """Bars on a terminal; one inside another stand below each other."""

    def __init__(self, console: Console) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function that takes the number of steps done so far, and draw it."""
        outermost = not self._bars.task_ids
        task = self._bars.add_task(description, total=total)
        if outermost:
            self._bars.start()
        try:
            yield lambda done: self._bars.update(task, completed=done)
        finally:
            if outermost:
                self._bars.stop()
            self._bars.remove_task(task)


class Lines(Progress):
    """A line now and then, for logs."""

    def __init__(self, say: Callable[[str], None], interval_s: float = LINE_INTERVAL_S) -> None:
        self._say = say
        self._interval_s = interval_s

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function that takes the number of steps done so far, and tell of it at times."""
        started = last = time.monotonic()

        def advance(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= self._interval_s:
                last = time.monotonic()
                self._say(f"{description}: {done}/{total} after {last - started:.0f} s")

        yield advance
