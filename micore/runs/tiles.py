"""How many rows go through one forward pass: as many as were asked for, halved while they do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Tile:
    """The rows of one forward pass; what was halved once stays so.

    ``halved(before, rows)`` is told of every change.
    """

    def __init__(self, rows: int, halved: Callable[[int, int], None] = lambda before, rows: None) -> None:
        self.rows = rows
        self._halved = halved

    def fit(self, work: Callable[[int], T]) -> T:
        """Call ``work(rows)``, and again with half the rows each time that it runs out of memory.

        Raises: MemoryError when one row is too many; what ``work`` raises for other reasons.
        """
        try:
            return work(self.rows)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            self._halve()
        # The error is gone here, and with it the frames that held the tensors.
        from accelerate.utils import find_executable_batch_size

        again: Callable[[], T] = find_executable_batch_size(work, self.rows, self._halve)
        return again()

    def _halve(self) -> int:
        if self.rows == 1:
            raise MemoryError("out of memory even with one row in a forward pass")
        before, self.rows = self.rows, self.rows // 2
        self._halved(before, self.rows)
        return self.rows


def _out_of_memory(error: RuntimeError) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size  # imported only now: it takes seconds

    return bool(should_reduce_batch_size(error))
