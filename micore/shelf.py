"""Where results that several attacks share are kept: priors that know no target."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micore.artifacts import load_state, save_state

if TYPE_CHECKING:
    from micore.runtime import Runtime


@dataclass
class Shelf:
    """A folder of finished results; None keeps nothing and every result is made anew.

    reused_seconds: what the results that were taken and not made had once cost.
    """

    folder: Path | None = None
    reused_seconds: float = 0.0

    def take(self, name: str, work: Callable[[Runtime], Mapping[str, Any]], runtime: Runtime) -> Mapping[str, Any]:
        """Return a result by its name; make it with checkpoints of its own if it is not there."""
        if self.folder is None:
            return work(runtime)
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            state, document = load_state(path)
            self.reused_seconds += float(document["seconds"])
            return state
        return self._make(path, work, runtime)

    def _make(self, path: Path, work: Callable[[Runtime], Mapping[str, Any]], runtime: Runtime) -> Mapping[str, Any]:
        from micore.runtime import Checkpoints

        started = time.monotonic()
        checkpoints = Checkpoints(path.with_suffix(".checkpoint.safetensors"), runtime.checkpoints.interval_s)
        result = work(runtime.with_checkpoints(checkpoints))
        save_state(path, result, {"seconds": round(time.monotonic() - started, 2)})
        checkpoints.clear()
        return result
