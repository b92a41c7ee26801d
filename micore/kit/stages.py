"""Long preparations in stages: each is done once, though the work is killed in between.

What needs no target (a generator of the public data) can stand on a shelf and serve several attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from micore import __version__
from micore.files import digest
from micore.runtime import Checkpoints, Runtime

__all__ = ["Stages", "shared", "tensor_digest"]

Work = Callable[[Runtime], Mapping[str, Any]]
"""Does one stage with the runtime's checkpoints and returns its result: nested plain data, as in a checkpoint."""


class Stages:
    """The stages of one preparation. Make it once, at the beginning: it loads the checkpoint.

    Results that come out of a checkpoint lie on the CPU; move them before use.
    """

    def __init__(self, runtime: Runtime) -> None:
        saved = runtime.checkpoints.load() or {}
        self._runtime = runtime
        self._done: dict[str, Any] = dict(saved.get("done", {}))
        self._current: dict[str, Any] = dict(saved.get("current", {}))

    def run(self, name: str, work: Work) -> Mapping[str, Any]:
        """Do a stage, or go on with it, or return its result if it was done."""
        if name not in self._done:
            checkpoints = _StageCheckpoints(self, name)
            self._done[name] = work(self._runtime.with_checkpoints(checkpoints))
            self._current = {}
            self._runtime.checkpoints.offer(self._state)
        result: Mapping[str, Any] = self._done[name]
        return result

    def _state(self) -> dict[str, Any]:
        return {"done": self._done, "current": self._current}

    def saved(self, name: str) -> dict[str, Any] | None:
        """Return where a stage was when the work was killed."""
        state: dict[str, Any] | None = self._current.get(name)
        return state

    def offer(self, name: str, state: Callable[[], Mapping[str, Any]]) -> None:
        """Offer the state of the current stage together with the results of those before."""
        self._runtime.checkpoints.offer(lambda: {"done": self._done, "current": {name: dict(state())}})


class _StageCheckpoints(Checkpoints):
    """The checkpoints that one stage sees."""

    def __init__(self, stages: Stages, name: str) -> None:
        super().__init__()
        self._stages, self._name = stages, name

    def load(self) -> dict[str, Any] | None:
        """Return this stage's own state."""
        return self._stages.saved(self._name)

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Save this stage's state among the others."""
        self._stages.offer(self._name, state)


def shared(name: str, identity: Mapping[str, Any], work: Work, runtime: Runtime) -> Mapping[str, Any]:
    """Return the result of target-free work from the runtime's shelf, or do it and leave it there.

    identity: JSON values that the result depends on, such as the settings and the digest of the data; seed,
    arithmetic and versions are added.
    """
    arithmetic = [runtime.seed, runtime.precision, runtime.compiled, runtime.device.type]
    key = digest(name, dict(identity), arithmetic, torch.__version__, __version__)
    return runtime.shelf.take(f"{name}-{key[:32]}", work, runtime)


def tensor_digest(tensor: Tensor) -> str:
    """Hash a tensor's shape, type and content."""
    content = tensor.detach().cpu().contiguous()
    return digest(list(content.shape), str(content.dtype), content.numpy().tobytes())
